"""Answers requests: one class for each address."""
