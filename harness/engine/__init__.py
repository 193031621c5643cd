"""Hands cells to hosts: in this process by default, behind one narrow seam."""
