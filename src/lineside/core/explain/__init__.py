"""Explanations of a network: attribution, feature visualisation, information plane, attacks.

Inputs have shape (batch, channel, time), (batch, channel, height, width) or, for recurrent
networks, (batch, time, feature). Functions take a network, such inputs and the index of the
output that is explained, and return maps on the input's own device. The network is explained in
evaluation mode, so items of a batch do not influence each other; its hooks, modes and gradients
and the global random state are left unchanged.

Outputs may have shape (batch,) - then `target` is not used - or (batch, score).
"""

from __future__ import annotations

from lineside.core.explain.attribution import (
    grad_cam,
    gradient_times_input,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
    saliency,
    smoothgrad,
    spectral_gradient_times_input,
    spectral_saliency,
    upsample,
)
from lineside.core.explain.feature_visualisation import (
    MaximisedInputs,
    Unit,
    colour_basis,
    first_filters,
    maximise_activation,
    most_activating,
    unit_activations,
)
from lineside.core.explain.sanity_checks import (
    agreement_with_random,
    randomise_weights,
    rank_agreement,
)

__all__ = [
    "MaximisedInputs",
    "Unit",
    "agreement_with_random",
    "colour_basis",
    "first_filters",
    "grad_cam",
    "gradient_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "maximise_activation",
    "most_activating",
    "occlusion",
    "randomise_weights",
    "rank_agreement",
    "saliency",
    "smoothgrad",
    "spectral_gradient_times_input",
    "spectral_saliency",
    "unit_activations",
    "upsample",
]
