"""Explanations of a network: attribution, feature visualisation, information plane, attacks.

Inputs have shape (batch, channel, time), (batch, channel, height, width) or, for recurrent
networks, (batch, time, feature). Functions take a network, such inputs and the index of the
output that is explained, and return maps on the input's own device. They leave no trace:
hooks are removed, train/eval modes and gradients stay as they were, no random number is drawn
from the global stream. The network is explained in evaluation mode, so items of a batch do not
influence each other.

Outputs may have shape (batch,) - then `target` is not used - or (batch, score).
"""

from __future__ import annotations

from lineside.core.explain.activation_maximisation import Maximised, colour_basis, maximise
from lineside.core.explain.class_activation import grad_cam, guided_grad_cam, upsample
from lineside.core.explain.gradients import (
    gradient_times_input,
    guided_backprop,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from lineside.core.explain.localisation import mass_ratio, pointing_hit
from lineside.core.explain.occlusion_map import occlusion
from lineside.core.explain.sanity_checks import (
    Agreement,
    agreement_with_random,
    cascade,
    randomised,
    rank_agreement,
    structural_similarity,
)
from lineside.core.explain.spectral import spectral_gradient_times_input, spectral_saliency
from lineside.core.explain.unit_spectra import spectrum_figure
from lineside.core.explain.units import (
    Unit,
    first_filters,
    most_activating,
    unit_activations,
)

__all__ = [
    "Agreement",
    "Maximised",
    "Unit",
    "agreement_with_random",
    "cascade",
    "colour_basis",
    "first_filters",
    "grad_cam",
    "gradient_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "mass_ratio",
    "maximise",
    "most_activating",
    "occlusion",
    "pointing_hit",
    "randomised",
    "rank_agreement",
    "saliency",
    "smoothgrad",
    "spectral_gradient_times_input",
    "spectral_saliency",
    "spectrum_figure",
    "structural_similarity",
    "unit_activations",
    "upsample",
]
