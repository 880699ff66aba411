"""Runs on the worker's own disk, and their way into the store."""
