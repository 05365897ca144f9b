"""Graded scans and photos of engraved pages; grades 0 (untouched) to 5 (barely readable).

Grade 3 is a poor but usable library scan. A degradation is a list of components, each with a
physical amount (lengths in staff spaces) that grows with the grade; which components a page gets,
and how much of them, is drawn once and kept as a record, so that it can be repeated, and every
component tried alone. Old paper, stains and show-through are merged darker pixel, as in ScoreAug
(Tuggener et al., TISMIR 2023); bleeding ink closes gaps between beams as on old prints.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lineside.scores.simulation.paper import paper, pencil, smooth_field, stamp
from lineside.scores.simulation.warp import Warp

GRADES = (0, 1, 2, 3, 4, 5)
FAMILIES = ("scan", "photo")
CURL_LENGTHS = (60.0, 200.0)  # staff spaces; a page is about 110 wide
THRESHOLD = 0.62  # between ink and paper: a line of one pixel on two of them, half as dark, stays
CELL = 1000.0  # staff spaces squared, about an eighteenth of a page: marks are counted per cell

Light = NDArray[np.float32]
"""How much light the paper sends back, 0 (black) to 1 (white), shape (height, width)."""
Change = Callable[[Light, float, float, np.random.Generator], Light]
"""(image, amount, staff space in pixels, rng) -> image of the same shape, perhaps beyond 0..1."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """What happens to one page.

    Attributes:
        family: ``"scan"`` or ``"photo"``.
        grade: From which the amounts were drawn, 0 to 5.
        seed: Of all details, e.g. where specks lie.
        amounts: Of each component that takes part, in the unit of `COMPONENTS`.
    """

    family: str
    grade: float
    seed: int
    amounts: Mapping[str, float]

    def only(self, *names: str) -> Degradation:
        """Return the same degradation with some of its components, e.g. to try one alone."""
        kept = {name: amount for name, amount in self.amounts.items() if name in names}
        return replace(self, amounts=kept)

    def rng_of(self, component: str) -> np.random.Generator:
        """Return the stream of one component: the same whatever else takes part."""
        return np.random.default_rng([self.seed, zlib.crc32(component.encode())])


@dataclass(frozen=True, kw_only=True)
class Component:
    """One way in which pages get worse.

    Attributes:
        effect: What it imitates.
        unit: Of the amounts.
        scan, photo: Amounts at grades 1 to 5; empty where the family does not have it.
        chance: How often it takes part, per family.
        change: What it does to pixels; none for `MOVES`, and for what needs the back as well.
    """

    effect: str
    unit: str
    scan: tuple[float, ...] = ()
    photo: tuple[float, ...] = ()
    chance: tuple[float, float] = (1.0, 1.0)
    change: Change | None = None


def draw_degradation(rng: np.random.Generator, grade: float, family: str = "scan") -> Degradation:
    """Draw what happens to one page.

    Raises:
        ValueError: if there is no such family, or `grade` is not 0..5.
    """
    if family not in FAMILIES or not 0 <= grade <= GRADES[-1]:
        raise ValueError(f"take {FAMILIES} and a grade of 0..5, got {family!r}, {grade!r}")
    amounts = {}
    for name, component in COMPONENTS.items():
        levels = component.scan if family == "scan" else component.photo
        takes_part = rng.random() < component.chance[FAMILIES.index(family)]
        share, sign = rng.uniform(0.6, 1.2), rng.choice([-1.0, 1.0])
        amount = share * float(np.interp(grade, GRADES, (0.0, *levels))) if levels else 0.0
        if takes_part and amount:
            amounts[name] = amount * float(sign) if name in SIGNED else amount
    seed = int(rng.integers(2**32))
    return Degradation(family=family, grade=grade, seed=seed, amounts=amounts)


def degrade(
    image: NDArray[np.uint8],
    interline_px: float,
    degradation: Degradation,
    behind: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Warp]:
    """Return a degraded page or crop, and where its points went.

    Args:
        image: Grey, shape (height, width), 0 black.
        interline_px: Staff space.
        degradation: What happens.
        behind: The page on the back, which shines through; `image` itself if none is given.

    Returns:
        An image of the same shape, and the map that moves the truth: ``warp.page(page)``.
    """
    warp = warp_of(degradation, image.shape, interline_px)
    result = warp.image(image)
    pixels = [name for name in COMPONENTS if name in degradation.amounts and name not in MOVES]
    if not pixels:
        return result, warp
    light = result.astype(np.float32) / np.float32(255)
    for name in pixels:
        change, amount = COMPONENTS[name].change, degradation.amounts[name]
        rng = degradation.rng_of(name)
        if name == "show_through":
            back = image if behind is None else behind
            light = show_through(light, amount, interline_px, rng, back)
        elif change:
            light = np.clip(change(light, amount, interline_px, rng), 0, 1)
    return np.round(light * 255).astype(np.uint8), warp


def warp_of(degradation: Degradation, shape: tuple[int, ...], interline_px: float) -> Warp:
    """Return the map of points of an image of a shape (height, width)."""
    amounts, rng = degradation.amounts, degradation.rng_of("warp")
    direction, phase = rng.uniform(0, 2 * np.pi, 2)
    length = rng.uniform(*CURL_LENGTHS)
    tilt = amounts.get("perspective", 0.0) / (100 * interline_px)
    return Warp(
        width=shape[1],
        height=shape[0],
        angle=amounts.get("rotation", 0.0),
        scale=1.0 + amounts.get("scale", 0.0),
        tilt=(float(tilt * np.cos(direction)), float(tilt * np.sin(direction))),
        curl_px=amounts.get("curl", 0.0) * interline_px,
        curl_length_px=float(length * interline_px),
        phase=float(phase),
    )


def break_lines(light: Light, share: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Take away a share of what is a thin horizontal line: staff lines, ledger lines."""
    ink = 1 - light
    long, thick = max(3, round(1.5 * interline_px)), max(2, round(0.35 * interline_px))
    along = ndimage.maximum_filter1d(ndimage.minimum_filter1d(ink, long, axis=1), long, axis=1)
    upright = ndimage.maximum_filter1d(ndimage.minimum_filter1d(ink, thick, axis=0), thick, axis=0)
    thin = np.clip(along - upright, 0, 1)
    gaps = _share_of(smooth_field(light.shape, 0.35 * interline_px, rng), share)
    return light + thin * gaps


def bleed(light: Light, radius: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Ink runs into the paper: shapes grow by a radius, unevenly, and narrow gaps close."""
    uneven = np.clip(1 + 0.25 * smooth_field(light.shape, 0.4 * interline_px, rng), 0.5, 1.5)
    return 1 - _grown(1 - light, radius * interline_px * uneven)


def thin_out(light: Light, radius: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Too little ink: shapes lose a radius, unevenly; thin lines break."""
    uneven = np.clip(1 + 0.5 * smooth_field(light.shape, 0.3 * interline_px, rng), 0, 2)
    return _grown(light, radius * interline_px * uneven)


def fade(light: Light, share: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Pale print: ink loses a share of its darkness, more here than there, with pale grains."""
    cloud = 1 + 0.3 * smooth_field(light.shape, 12 * interline_px, rng)
    grain = 0.25 * smooth_field(light.shape, 0.15 * interline_px, rng)
    return light + (1 - light) * share * np.clip(cloud + grain, 0, 1.5)


def show_through(
    light: Light, share: float, interline_px: float, rng: np.random.Generator,
    behind: NDArray[np.uint8],
) -> Light:  # fmt: skip
    """The back of the leaf shines through, mirrored and soft; the darker pixel stays."""
    mirrored = np.full(light.shape, 255, np.uint8)
    height, width = np.minimum(light.shape, behind.shape)
    mirrored[:height, :width] = behind[:height, :width][:, ::-1]
    shift = rng.integers(-round(3 * interline_px), round(3 * interline_px) + 1, size=2)
    ink = 1 - np.roll(mirrored, tuple(shift), (0, 1)).astype(np.float32) / 255
    soft = ndimage.gaussian_filter(ink, 0.15 * interline_px, mode="nearest", truncate=3)
    return np.minimum(light, 1 - share * soft)


def lay_on_paper(light: Light, tone: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Old paper in the place of white, merged darker pixel."""
    return np.minimum(light, 1 - tone * paper(light.shape, interline_px, rng))


def add_specks(
    light: Light, density: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """Dust: dark specks on paper and, one in three, light ones on ink; mostly tiny."""
    height, width = light.shape
    number = rng.poisson(density * height * width / interline_px**2 / CELL)
    radii = np.minimum(interline_px * 0.04 * rng.pareto(2.0, number) + 0.4, 0.25 * interline_px)
    middles = rng.uniform((0, 0), (height, width), (number, 2))
    values = np.where(rng.random(number) < 0.33, 1.0, rng.uniform(0, 0.4, number))
    result = light.copy()
    for size in range(1, int(radii.max(initial=0)) + 2):  # specks of one size at once
        mine = np.ceil(radii) == size
        span = np.arange(-size, size + 1)
        offsets = np.stack(np.meshgrid(span, span, indexing="ij"), -1).reshape(1, -1, 2)
        at = np.floor(middles[mine])[:, None].astype(int) + offsets
        distance = np.hypot(*np.moveaxis(at + 0.5 - middles[mine][:, None], -1, 0))
        inside = (distance <= radii[mine][:, None]) & (at >= 0).all(-1) & (at < light.shape).all(-1)
        rows, columns = at[inside].T
        result[rows, columns] = np.broadcast_to(values[mine][:, None], inside.shape)[inside]
    return result


def add_pencil(
    light: Light, density: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """Marks by hand: fingerings, slurs, circles, ticks."""
    marks = int(rng.poisson(density * light.size / interline_px**2 / CELL))
    return np.minimum(light, 1 - pencil(light.shape, interline_px, marks, rng))


def add_stamp(
    light: Light, darkness: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """A library's stamp somewhere on the image, over the print."""
    return light * (1 - darkness * stamp(light.shape, interline_px, rng))


def light_unevenly(
    light: Light, loss: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """A lamp at one side, darker corners and the soft edge of a shadow; `loss` where darkest."""
    height, width = light.shape
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    ramp = (np.cos(angle) * across + np.sin(angle) * down + 1.42) / 2.84
    corners = (across**2 + down**2) / 2
    shadow = np.clip((ramp - rng.uniform(0.3, 0.9)) * rng.uniform(3, 12), 0, 1)
    weights = rng.dirichlet((2.0, 1.0, 0.7))
    return light * (1 - loss * (weights[0] * ramp + weights[1] * corners + weights[2] * shadow))


def blur(light: Light, sigma: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Out of focus."""
    return ndimage.gaussian_filter(light, sigma * interline_px, mode="nearest", truncate=3)


def smear(light: Light, length: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Moved during the exposure, along one axis."""
    pixels = max(1.0, length * interline_px)
    reach = int(np.ceil(pixels / 2))
    weights = np.clip(pixels / 2 + 0.5 - np.abs(np.arange(-reach, reach + 1)), 0, 1)
    axis = int(rng.integers(2))
    return ndimage.correlate1d(light, weights / weights.sum(), axis=axis, mode="nearest")


def lose_resolution(
    light: Light, share: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """Taken with fewer pixels and enlarged."""
    height, width = light.shape
    small = (max(1, round(width * (1 - share))), max(1, round(height * (1 - share))))
    picture = Image.fromarray(light).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def add_noise(
    light: Light, grey_levels: float, interline_px: float, rng: np.random.Generator
) -> Light:
    """Sensor noise, white and Gaussian."""
    return light + np.float32(grey_levels / 255) * rng.standard_normal(light.shape, np.float32)


def compress(light: Light, loss: float, interline_px: float, rng: np.random.Generator) -> Light:
    """Compress as JPEG."""
    stream = io.BytesIO()
    grey = Image.fromarray(np.round(light * 255).astype(np.uint8))
    grey.save(stream, "JPEG", quality=max(1, round(100 - loss)))
    return np.asarray(Image.open(stream), dtype=np.float32) / np.float32(255)


def binarise(light: Light, offset: float, interline_px: float, rng: np.random.Generator) -> Light:
    """One bit per pixel at twice the resolution, with a threshold that wanders over the page.

    A positive `offset` makes ink fat, a negative one thin and broken.
    """
    height, width = light.shape
    sample = light[::3, ::3]
    dark, bright = np.quantile(sample, 0.02), np.median(sample)
    dark = min(dark, bright - 0.25)  # a crop without ink
    offset = max(offset, 0.5 * offset)  # thin lines are lost sooner than gaps are closed
    wander = 0.25 * abs(offset) * smooth_field(light.shape, 8 * interline_px, rng)
    threshold = dark + (bright - dark) * np.clip(THRESHOLD + offset + wander, 0.1, 0.92)
    above = light - threshold + 0.05 * smooth_field(light.shape, 1.0, rng)
    large = Image.fromarray(above).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    bits = Image.fromarray((np.asarray(large) > 0).view(np.uint8) * np.uint8(255))
    return np.asarray(bits.reduce(2), dtype=np.float32) / np.float32(255)


COMPONENTS = {
    "rotation": Component(
        effect="laid askew", unit="degrees",
        scan=(0.3, 0.6, 1.0, 1.5, 2.2), photo=(0.5, 1.0, 1.7, 2.5, 3.5),
    ),
    "scale": Component(
        effect="another size", unit="share",
        scan=(0.01, 0.02, 0.03, 0.04, 0.05), photo=(0.01, 0.02, 0.03, 0.04, 0.05),
    ),
    "perspective": Component(
        effect="seen from the side", unit="change of scale over 100 staff spaces",
        photo=(0.02, 0.04, 0.07, 0.1, 0.14),
    ),
    "curl": Component(
        effect="page not flat", unit="staff spaces",
        scan=(0.1, 0.2, 0.35, 0.6, 1.0), photo=(0.15, 0.3, 0.6, 1.0, 1.5), chance=(0.4, 0.8),
    ),
    "line_breaks": Component(
        effect="broken staff lines", unit="share of their length",
        scan=(0.01, 0.03, 0.08, 0.15, 0.3), photo=(0.01, 0.02, 0.04, 0.08, 0.15),
        chance=(0.4, 0.2), change=break_lines,
    ),
    "bleed": Component(
        effect="ink runs", unit="staff spaces",
        scan=(0.02, 0.04, 0.07, 0.1, 0.14), photo=(0.01, 0.02, 0.04, 0.06, 0.08),
        chance=(0.5, 0.4), change=bleed,
    ),
    "thin_ink": Component(
        effect="too little ink", unit="staff spaces",
        scan=(0.008, 0.015, 0.023, 0.032, 0.045), photo=(0.008, 0.013, 0.02, 0.026, 0.035),
        chance=(0.3, 0.2), change=thin_out,
    ),
    "fading": Component(
        effect="pale ink", unit="share of its darkness",
        scan=(0.05, 0.1, 0.18, 0.28, 0.4), photo=(0.05, 0.1, 0.15, 0.22, 0.32),
        chance=(0.5, 0.5), change=fade,
    ),
    "show_through": Component(
        effect="the back shines through, mirrored", unit="share of its ink",
        scan=(0.03, 0.07, 0.13, 0.22, 0.35), photo=(0.03, 0.06, 0.1, 0.15, 0.25),
        chance=(0.35, 0.35), change=None,
    ),
    "pencil": Component(
        effect="marks by hand", unit="per 1000 square staff spaces",
        scan=(0.3, 0.6, 1.0, 2.0, 3.0), photo=(0.3, 0.6, 1.0, 2.0, 3.0),
        chance=(0.25, 0.25), change=add_pencil,
    ),
    "stamp": Component(
        effect="a library's stamp", unit="darkness",
        scan=(0.3, 0.4, 0.5, 0.65, 0.8), photo=(0.3, 0.4, 0.5, 0.65, 0.8),
        chance=(0.12, 0.08), change=add_stamp,
    ),
    "paper": Component(
        effect="old paper, foxing, tide lines", unit="darkness",
        scan=(0.08, 0.16, 0.26, 0.4, 0.55), photo=(0.08, 0.16, 0.25, 0.35, 0.45),
        chance=(0.5, 0.7), change=lay_on_paper,
    ),
    "specks": Component(
        effect="dust", unit="per 1000 square staff spaces",
        scan=(3, 8, 16, 40, 100), photo=(1, 2, 4, 8, 16),
        chance=(0.7, 0.3), change=add_specks,
    ),
    "light": Component(
        effect="uneven light", unit="share lost where it is darkest",
        scan=(0.03, 0.06, 0.1, 0.2, 0.3), photo=(0.15, 0.25, 0.4, 0.55, 0.7),
        chance=(0.3, 1.0), change=light_unevenly,
    ),
    "resolution": Component(
        effect="fewer pixels", unit="share lost per side",
        scan=(0.05, 0.1, 0.2, 0.3, 0.45), photo=(0.05, 0.1, 0.2, 0.3, 0.45),
        chance=(0.25, 0.4), change=lose_resolution,
    ),
    "blur": Component(
        effect="out of focus", unit="staff spaces, sigma",
        scan=(0.035, 0.05, 0.07, 0.1, 0.13), photo=(0.035, 0.055, 0.08, 0.12, 0.17),
        chance=(0.7, 0.9), change=blur,
    ),
    "motion": Component(
        effect="moved", unit="staff spaces",
        photo=(0.1, 0.14, 0.2, 0.28, 0.4), chance=(0.0, 0.3), change=smear,
    ),
    "noise": Component(
        effect="sensor noise", unit="grey levels of 255",
        scan=(2, 4, 7, 12, 20), photo=(3, 6, 10, 16, 26), chance=(0.6, 0.9), change=add_noise,
    ),
    "jpeg": Component(
        effect="compressed", unit="100 - quality",
        scan=(15, 30, 45, 58, 70), photo=(15, 30, 45, 58, 70), chance=(0.4, 1.0), change=compress,
    ),
    "one_bit": Component(
        effect="black and white only", unit="offset of the threshold",
        scan=(0.05, 0.1, 0.16, 0.22, 0.3), chance=(0.55, 0.0), change=binarise,
    ),
}  # fmt: skip
"""All components, in the order in which they happen."""
MOVES = ("rotation", "scale", "perspective", "curl")
SIGNED = ("rotation", "scale", "one_bit")


def _grown(cover: Light, radius: NDArray[np.floating]) -> Light:
    """Let what covers pixels grow by a radius in pixels that varies over the image.

    An edge that moves by r <= 1 pixels covers r more of a pixel whose neighbour is covered; further
    in steps of one pixel. Unlike a grey dilation, this also darkens lines thinner than a pixel.
    """
    for step in range(max(0, int(np.ceil(radius.max(initial=0))))):
        padded = np.pad(cover, 1, mode="edge")
        near = np.maximum(padded[:-2, 1:-1], padded[2:, 1:-1])
        near = np.maximum(near, np.maximum(padded[1:-1, :-2], padded[1:-1, 2:]))
        cover = np.minimum(cover + np.clip(radius - step, 0, 1) * near, 1)
    return cover


def _share_of(field: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return 1 in about a share of the area of a field of mean 0 and std 1, soft at the edges."""
    # the logistic curve is within 1 % of the normal distribution: P(z > t) = 1/(1 + exp(1.702 t))
    share = min(max(share, 1e-6), 1 - 1e-6)
    level = np.log(1 / share - 1) / 1.702
    return np.clip((field - level) * 4 + 0.5, 0, 1)
