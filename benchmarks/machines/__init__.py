"""Benchmarks of `machines`; see `__main__`."""
