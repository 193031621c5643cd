"""Guest root images: OCI layers built from ``guests/``, made into read-only EROFS files; an initramfs per kernel."""
