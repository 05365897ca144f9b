"""Simulated close-ups of balloon catheters with known defects: for the demo and the tests."""

from lineside.parts.simulation.dataset import demo

__all__ = ["demo"]
