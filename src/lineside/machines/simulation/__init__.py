"""Simulated machines with known faults: for the demo, the tests and what no data set can show."""
