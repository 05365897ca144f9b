"""Pages are turned upright and brought to scale, and points find their way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import rotate

from lineside.core.errors import UserError
from lineside.scores.data.normalise import normalise, skew_degrees
from lineside.scores.data.staff_space import staff_space
from lineside.scores.engraving.page import Page
from lineside.scores.engraving.verovio_engraver import Style, engrave

LINES = "\n".join("GABc d2 e2|fedc B2 A2|" * 2 for _ in range(6))


@pytest.fixture(scope="module")
def engraved(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Page]:
    path: Path = tmp_path_factory.mktemp("song") / "song.abc"
    path.write_text(f"X:1\nL:1/8\nM:4/4\nK:C\n{LINES}\n")
    image, page = next(engrave(path, Style(options={"pageWidth": 1400, "pageHeight": 1200}), 16.0))
    return image, page


@pytest.mark.parametrize("angle", [-2.3, -0.4, 0.0, 1.1])
def test_skew_is_found(engraved: tuple[np.ndarray, Page], angle: float) -> None:
    turned = rotate(engraved[0], -angle, reshape=True, cval=255, order=1)  # positive: clockwise
    assert skew_degrees(turned, 16.0) == pytest.approx(angle, abs=0.06)


def test_a_skewed_page_comes_upright_at_scale(engraved: tuple[np.ndarray, Page]) -> None:
    image, _ = engraved
    turned = rotate(image, -1.5, reshape=True, cval=255, order=1)
    upright = normalise(turned, 10.5)
    assert upright.interline_px == pytest.approx(16.0, rel=0.01)
    assert staff_space(upright.grey) == pytest.approx(10.5, rel=0.01)
    assert abs(skew_degrees(upright.grey, 10.5)) < 0.06
    assert upright.grey.shape == pytest.approx([10.5 / 16 * s for s in turned.shape], rel=0.1)


def test_points_find_their_way_back(engraved: tuple[np.ndarray, Page]) -> None:
    image, _ = engraved
    found = normalise(rotate(image, -1.0, reshape=False, cval=255, order=1), 12.0)
    points = np.array([[10.0, 20.0], [300.0, 400.0]])
    there = points @ found.transform[:, :2].T + found.transform[:, 2]
    assert found.back(there) == pytest.approx(points)


def test_what_needs_no_change_gets_none(engraved: tuple[np.ndarray, Page]) -> None:
    same = normalise(engraved[0], 16.0)
    assert same.grey is engraved[0]
    assert np.array_equal(same.transform, np.eye(2, 3))


def test_a_page_without_staves_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no staff lines"):
        normalise(np.full((200, 100), 255, np.uint8), 10.5)
