"""Benchmarks of the budgets in docs/benchmarks.md; run with `make bench`. Not tests: a noisy machine shows."""
