"""Decisions about runs: pure functions of values."""
