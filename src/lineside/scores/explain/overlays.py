"""A page with what was found on it, the energy that it was found by, and what moved a symbol."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lineside.core.contract import Explanation, Figure
from lineside.scores.models.watershed.decoding import expected_energy
from lineside.scores.models.watershed.targets import CLASSES, STRIDE

if TYPE_CHECKING:
    from lineside.scores.data.dataset import PageItem
    from lineside.scores.model import ReadPage, ScoresModel

DOUBTFUL = 0.6
SURE_RGB, DOUBT_RGB, LEFT_RGB = (0, 120, 60), (230, 140, 0), (190, 0, 60)
ENERGY_RGB = np.array([230, 60, 0], np.float64)
SALIENCY_CELLS = 40  # half the side of the window in which saliency is shown


def explain_page(model: ScoresModel, item: PageItem) -> Explanation:
    """Show what was found on a page, and why.

    Raises:
        UserError: if the page cannot be read.
    """
    read = model.read(item)
    believed = model.believed(read.found)
    counts = Counter(CLASSES[c] for c in read.found.classes[believed])
    common = ", ".join(f"{number} {name}" for name, number in counts.most_common(5)) or "nothing"
    doubtful = int((read.found.confidences[believed] < DOUBTFUL).sum())
    figures = [_found(read, believed)]
    if hasattr(model.detector, "maps"):
        figures += _maps(model.detector, read, believed)
    return Explanation(
        item=item.id,
        text=f"{int(believed.sum())} symbols: {common}; {doubtful} are doubtful.",
        figures=tuple(figures),
        facts={
            "staff space": f"{read.page.interline_px:.1f} px",
            "skew": f"{read.page.skew_degrees:.2f} degrees",
        },
    )


def _found(read: ReadPage, believed: NDArray[np.bool_]) -> Figure:
    image = Image.fromarray(read.page.grey).convert("RGB")
    pen = ImageDraw.Draw(image)
    for box, sure, kept in zip(
        read.found.boxes().tolist(), read.found.confidences, believed, strict=True
    ):
        colour = LEFT_RGB if not kept else SURE_RGB if sure >= DOUBTFUL else DOUBT_RGB
        pen.rectangle(box, outline=colour)
    caption = (
        f"Symbols that are believed (green), doubtful ones below a confidence of {DOUBTFUL} "
        "(orange), and what was left out (red)."
    )
    return Figure(title="What was found", image=_png(image), caption=caption, wide=True)


def _maps(detector: Any, read: ReadPage, believed: NDArray[np.bool_]) -> list[Figure]:
    """Return the energy map, and the saliency of the most doubtful symbol."""
    grey = read.page.grey
    energy = expected_energy(detector.maps(grey).energy)[0].numpy()
    large = np.kron(energy, np.ones((STRIDE, STRIDE)))[: grey.shape[0], : grey.shape[1], None]
    page = np.repeat(grey[..., None], 3, axis=2)
    coloured = Image.fromarray((page * (1 - large) + ENERGY_RGB * large).astype(np.uint8))
    caption = (
        "Energy, 0 (clear) to 1 (red), highest at the centres of symbols; where two hills run "
        "into one, the second cut of the watershed divides them."
    )
    figures = [Figure(title="Energy", image=_png(coloured), caption=caption, wide=True)]
    kept = np.flatnonzero(believed)
    if len(kept):
        doubtful = kept[int(read.found.confidences[kept].argmin())]
        figures.append(_saliency(detector, read, int(doubtful)))
    return figures


def _saliency(detector: Any, read: ReadPage, symbol: int) -> Figure:
    """Show which pixels move the class of a symbol: input times gradient of its logit."""
    x, y = (int(value) for value in read.found.centres[symbol] / STRIDE)
    top, left = max(0, y - SALIENCY_CELLS) * STRIDE, max(0, x - SALIENCY_CELLS) * STRIDE
    side = 2 * SALIENCY_CELLS * STRIDE
    window = read.page.grey[top : top + side, left : left + side]
    padded = np.full((side, side), 255, np.uint8)
    padded[: window.shape[0], : window.shape[1]] = window
    ink = torch.from_numpy(1 - padded.astype(np.float32) / 255)[None, None].requires_grad_()
    c = int(read.found.classes[symbol])
    with torch.enable_grad():
        features = detector.network(ink).features
        row, column = y - top // STRIDE, x - left // STRIDE
        logit = detector.network.at(features[:, :, row, column]).classes[0, c]
        (gradient,) = torch.autograd.grad(logit, ink)
    moved = (ink * gradient)[0, 0].detach().numpy()
    share = np.clip(moved / max(float(np.abs(moved).max()), 1e-9), -1, 1)[..., None]
    paper = np.repeat(padded[..., None], 3, axis=2) * 0.35 + 165
    for_it, against = np.array([200.0, 60, 0]), np.array([0.0, 70, 200])
    shown = paper * (1 - np.abs(share)) + np.where(share > 0, for_it, against) * np.abs(share)
    image = Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)).resize((3 * side, 3 * side))
    name, sure = CLASSES[c], read.found.confidences[symbol]
    caption = (
        f"The most doubtful symbol, in the middle: {name} with a confidence of {sure:.2f}. Pixels "
        "that speak for it are orange, those against it blue (ink times gradient)."
    )
    return Figure(title="What moves the most doubtful symbol", image=_png(image), caption=caption)


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()
