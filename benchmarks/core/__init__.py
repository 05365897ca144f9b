"""Benchmarks of the shared core; see ``__main__.py``."""
