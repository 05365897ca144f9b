"""What a network's units look for: inputs made for them, and the data they answer most.

Networks take inputs of shape (batch, channel, time) or (batch, channel, height, width) and are
looked at in evaluation mode; nothing of them changes.
"""

from lineside.core.visualisation.maximisation import Maximised, colour_basis, maximise
from lineside.core.visualisation.spectra import spectrum_figure
from lineside.core.visualisation.units import (
    Unit,
    first_filters,
    most_activating,
    unit_activations,
)

__all__ = [
    "Maximised",
    "Unit",
    "colour_basis",
    "first_filters",
    "maximise",
    "most_activating",
    "spectrum_figure",
    "unit_activations",
]
