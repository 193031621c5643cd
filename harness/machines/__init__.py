"""Where a cell runs: a libvirt domain with its console, its SSH connection and the daemon behind it."""
