"""The collector `pyinstrument`: where the time of a task went."""
