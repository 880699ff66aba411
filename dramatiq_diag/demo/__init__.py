"""The demo workload: real work on an input that every machine has, with every diagnostic on."""
