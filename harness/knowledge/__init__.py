"""What is known of kernels and drivers without trying: known issues, rules of configuration, version floors."""
