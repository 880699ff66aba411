"""Finds what many runs show together: pure functions of numbers, and modules that read these from the store."""
