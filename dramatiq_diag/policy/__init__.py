"""Decides about runs: pure functions of values."""
