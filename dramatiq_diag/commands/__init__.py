"""The commands of `dramatiq-diag`, one or a few that belong together in a module."""
