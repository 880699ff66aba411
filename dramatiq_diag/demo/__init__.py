"""Real work on an input that every machine has, with every diagnostic on."""
