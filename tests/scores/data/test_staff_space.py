"""Staff space of drawn staves, clean and under hard conditions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import rotate

from lineside.scores.data.staff_space import staff_space


def staves(
    interline_px: float, staff_count: int = 4, height: int = 900, width: int = 700
) -> NDArray[np.uint8]:
    """Draw staves four times as large and reduce them: line edges lie at fractions of a pixel."""
    large = np.full((4 * height, 4 * width), 255, np.uint8)
    thickness = max(2, round(0.5 * interline_px))
    for staff in range(staff_count):
        for line in range(5):
            y = 4 * (60 + staff * (height - 100) / staff_count + line * interline_px)
            large[round(y) : round(y) + thickness, 200:-200] = 0
    return np.asarray(Image.fromarray(large).resize((width, height), Image.Resampling.BOX))


@pytest.mark.parametrize("interline_px", [6.0, 7.35, 8.5, 10.5, 17.8, 40.0])
def test_found_to_a_fraction_of_a_pixel(interline_px: float) -> None:
    page = staves(interline_px, staff_count=3 if interline_px > 30 else 4)
    assert staff_space(page) == pytest.approx(interline_px, rel=0.01)


def test_slanted_binary_and_noisy_pages() -> None:
    page = rotate(staves(12.0), 1.5, reshape=False, cval=255, order=1)
    assert staff_space(page) == pytest.approx(12.0, rel=0.01)
    assert staff_space(np.where(page < 128, 0, 255).astype(np.uint8)) == pytest.approx(12, rel=0.02)
    noise = np.random.default_rng(0).normal(0, 25, page.shape)
    assert staff_space(np.clip(page + noise, 0, 255).astype(np.uint8)) == pytest.approx(
        12, rel=0.02
    )


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_no_staff_no_number(shade: int) -> None:
    assert staff_space(np.full((300, 200), shade, np.uint8)) is None
    noise = np.random.default_rng(1).integers(0, 256, (400, 300)).astype(np.uint8)
    assert staff_space(noise) is None
    assert staff_space(np.full((5, 5), shade, np.uint8)) is None
