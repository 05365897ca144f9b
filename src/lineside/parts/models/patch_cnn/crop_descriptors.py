"""Hand-made descriptor of a crop, for the label-noise check: no network judges its own labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lineside.parts.audit.survey import describe

GRADIENT_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
GREY_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.75, 0.95, 0.99, 1.0)
SCALES_PX = (1, 2, 4)
BLOB_QUANTILES = (0.001, 0.01, 0.99, 0.999)


def describe_crop(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return radial spectrum, quantiles of grey and of the gradient, and blobs at three scales.

    Args:
        grey: Shape (height, width), values 0..1.

    Returns:
        Shape (57,); all but the spectrum's last two do not depend on brightness and contrast.
    """
    x = grey.astype(np.float64)
    spread = x.std() + 1e-6
    gradient = np.hypot(*np.gradient(x)) / spread
    deviation = x - np.median(x)
    z = deviation / (1.4826 * np.median(np.abs(deviation)) + 1e-3)
    features = [
        describe(grey),
        np.quantile(gradient, GRADIENT_QUANTILES),
        np.quantile(z, GREY_QUANTILES),
    ]
    for scale in SCALES_PX:
        band = gaussian_filter(x, scale) - gaussian_filter(x, 2 * scale)
        sharp = band / (band.std() + 1e-6)
        features.append(np.quantile(band, BLOB_QUANTILES) / spread)
        features.append(np.array([sharp.min(), sharp.max(), (sharp**4).mean() ** 0.25]))
    return np.concatenate(features)
