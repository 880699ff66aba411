"""The collectors `logs` and `debug-logs`, and the records of tasks' own code that they take."""
