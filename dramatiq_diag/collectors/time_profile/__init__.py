"""The collector `pyinstrument`, with its two engines."""
