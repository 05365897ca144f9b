"""Benchmarks of `scores`."""
