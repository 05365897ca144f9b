"""Data that `parts` makes itself: simulated close-ups of balloon catheters with known defects."""

from lineside.parts.simulation.dataset import demo

__all__ = ["demo"]
