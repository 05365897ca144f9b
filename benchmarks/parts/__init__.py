"""Benchmarks of `parts`; see ``__main__.py``."""
