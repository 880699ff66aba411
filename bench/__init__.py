"""Benchmarks of the budgets in the README; run with `make bench`. Not tests: a noisy machine shows."""
