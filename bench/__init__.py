"""Benchmarks of the budgets in the README; run with `make bench`. Not tests: they measure, and a noisy machine shows."""
