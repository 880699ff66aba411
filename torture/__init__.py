"""Workers that are killed while their store comes and goes, and an account of what they left: `make torture`."""
