"""What the interpreter and the machine are doing. Nothing in here knows tasks."""
