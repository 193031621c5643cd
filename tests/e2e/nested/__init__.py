"""Passthrough without hardware: a VM with an emulated IOMMU is the host, and a VM in it gets its devices."""
