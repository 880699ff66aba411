"""Reads and controls the interpreter and the machine. Nothing in here knows tasks."""
