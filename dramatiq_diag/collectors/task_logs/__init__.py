"""The collectors `logs` and `debug-logs`: what a task logged."""
