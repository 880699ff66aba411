"""What runs in a worker process while diagnostics are on."""
