"""What of this host can be lent to a VM: found, judged, leased, bound, reset, and given back."""
