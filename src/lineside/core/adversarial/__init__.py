"""Attacks on a network's input, and the trace that they leave in its response."""
