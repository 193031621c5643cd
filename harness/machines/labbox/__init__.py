"""Lab boxes: hosts that are there already, reached over SSH and booted into one of their kernels for one boot."""
