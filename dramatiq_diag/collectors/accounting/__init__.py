"""Accounts for the whole wall time of a task: its own CPU time, and what it waited for."""
