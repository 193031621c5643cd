"""A stack's kernel modules for one kernel: built in a container, proven by their files, kept by content."""
