"""Why a network said what it said: attribution of its score to the input.

Inputs have shape (batch, channel, time), (batch, channel, height, width) or, for recurrent
networks, (batch, time, feature). Functions take a network, such inputs and the index of the
output that is explained, and return maps on the input's own device. They leave no trace:
hooks are removed, train/eval modes and gradients stay as they were, no random number is drawn
from the global stream. The network is explained in evaluation mode, so items of a batch do not
influence each other.

Outputs may have shape (batch,) - then `target` is not used - or (batch, score).
"""

from lineside.core.explanation.cams import grad_cam, guided_grad_cam, upsample
from lineside.core.explanation.covering import occlusion
from lineside.core.explanation.gradients import (
    gradient_times_input,
    guided_backprop,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from lineside.core.explanation.localisation import mass_ratio, pointing_hit
from lineside.core.explanation.randomisation import (
    Agreement,
    agreement_with_random,
    cascade,
    randomised,
    rank_agreement,
    structural_similarity,
)
from lineside.core.explanation.spectral import spectral_gradient_times_input, spectral_saliency

__all__ = [
    "Agreement",
    "agreement_with_random",
    "cascade",
    "grad_cam",
    "gradient_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "mass_ratio",
    "occlusion",
    "pointing_hit",
    "randomised",
    "rank_agreement",
    "saliency",
    "smoothgrad",
    "spectral_gradient_times_input",
    "spectral_saliency",
    "structural_similarity",
    "upsample",
]
