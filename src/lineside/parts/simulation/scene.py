"""A catheter in front of the camera: its shape, surface and lighting, and how the camera sees it.

A part is a hollow body of revolution: a balloon, the cone at its end, or the shaft. It is described
in its own frame: u runs along the axis, v across it, z to the camera, all in pixels. All arrays
have the shape of the canvas, which is a little larger than the photographs that are cut from it.

The part is translucent, the lamps are dark-field lamps. Light that reaches the camera is the sum of
mirror reflections of the lamps on the front and the back wall, of light scattered in the wall, and
of what lies behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.floating[Any]]
"""One value per pixel of the canvas, shape (height, width)."""

Colour = NDArray[np.float32]
"""Linear radiance, shape (height, width, 3), 1 is just white at the middle exposure."""

SECTIONS = ("balloon", "cone", "shaft")
TEXTURE_PX = 256


@dataclass(frozen=True, kw_only=True)
class Lamps:
    """The lighting of one set-up: a ring light with unequal segments and a bar light."""

    ring_rad: float
    ring_width_rad: float
    azimuth_rad: float
    unevenness: float
    bar_rad: float
    bar_width_rad: float
    bar_power: float
    slope: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One part in front of the camera, without a defect.

    Attributes:
        angle_rad: Direction of the axis in the picture.
        u: Place along the axis, px.
        v: Place across the axis, px, 0 on the axis.
        radius: Radius of the body, px.
        inner: Radius of the tube inside the balloon (0 in the shaft), px.
        wall: Thickness of the wall as a share of the radius.
        texture: Height of the front wall's texture, px.
        back: Height of the back wall's texture, px.
        ink: Share of the light that printed marks swallow.
        metal: 1 on a marker band of the inner tube.
        behind: Radiance of the background.
        light: Unevenness of the lighting.
        lamps: The lamps.
        milk: How strongly the wall scatters.
        tint: Colour of the wall.
        gloss: Strength of mirror reflections.
        focus: Height in focus as a share of the radius.
        defocus: Blur of what is a radius away from the focus, px.
    """

    angle_rad: float
    u: Plane
    v: Plane
    radius: Plane
    inner: float
    wall: float
    texture: Plane
    back: Plane
    ink: Plane
    metal: Plane
    behind: Plane
    light: Plane
    lamps: Lamps
    milk: float
    tint: NDArray[np.float32]
    gloss: float
    focus: float
    defocus: float

    @property
    def across(self) -> Plane:
        """Place across the body, -1 and 1 at its outlines."""
        across: Plane = self.v / self.radius
        return across


def make_lamps(rng: np.random.Generator) -> Lamps:
    """Draw the lighting of one set-up."""
    return Lamps(
        ring_rad=rng.uniform(0.8, 1.15),
        ring_width_rad=rng.uniform(0.05, 0.09),
        azimuth_rad=rng.uniform(-np.pi, np.pi),
        unevenness=rng.uniform(0.35, 0.7),
        bar_rad=rng.choice([-1, 1]) * rng.uniform(0.25, 0.5),
        bar_width_rad=rng.uniform(0.04, 0.12),
        bar_power=rng.uniform(0.4, 0.9),
        slope=(rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)),
    )


def make_scene(
    rng: np.random.Generator, shape: tuple[int, int], section: str, lamps: Lamps
) -> Scene:
    """Draw a good part of a section, filling a canvas of shape (height, width)."""
    height, width = shape
    short = min(shape)
    angle = rng.uniform(-0.3, 0.3) * (0.5 if max(shape) > 1.4 * short else 1.0)
    if height > width:
        angle += np.pi / 2
    y, x = np.indices(shape, dtype=np.float32)
    x -= width / 2 + rng.uniform(-0.06, 0.06) * short
    y -= height / 2 + rng.uniform(-0.06, 0.06) * short
    u = np.cos(angle) * x + np.sin(angle) * y
    bow = rng.uniform(-0.12, 0.12) / short
    v = -np.sin(angle) * x + np.cos(angle) * y - bow * u**2
    if rng.random() < 0.5:
        u = -u
    radius, seam = _make_outline(rng, u, short, section)
    turn = np.arcsin(np.clip(v / radius, -1, 1))
    inner = 0.0 if section == "shaft" else short * rng.uniform(0.085, 0.105)
    return Scene(
        angle_rad=float(angle),
        u=u,
        v=v,
        radius=radius,
        inner=inner,
        wall=rng.uniform(0.07, 0.12) if section != "shaft" else rng.uniform(0.2, 0.3),
        texture=_make_texture(rng, u, turn, short) + _make_seam(rng, u, turn, seam),
        back=_make_texture(rng, u, np.pi - turn, short),
        ink=_make_print(rng, u, turn, short) if section == "shaft" else np.zeros_like(u),
        metal=_make_band(rng, u, short) if inner else np.zeros_like(u),
        behind=_make_background(rng, x, y, short),
        light=_light_fall_off(x, y, lamps, max(shape)),
        lamps=lamps,
        milk=rng.uniform(0.12, 0.3),
        tint=np.array([rng.uniform(0.72, 0.9), rng.uniform(0.85, 0.95), 1], dtype=np.float32),
        gloss=rng.uniform(0.8, 1.3),
        focus=rng.uniform(0.3, 1.0),
        defocus=rng.uniform(0.8, 2.6) * short / 256,
    )


def _make_outline(
    rng: np.random.Generator, u: Plane, short: float, section: str
) -> tuple[Plane, float | None]:
    """Return the radius, and where a weld seam lies."""
    if section == "shaft":
        return np.full_like(u, short * rng.uniform(0.15, 0.22)), None
    large = short * rng.uniform(0.27, 0.36)
    if section == "balloon":
        waves = 1 + 0.012 * np.sin(u / short * rng.uniform(3, 8) + rng.uniform(0, 6))
        return (large * waves).astype(np.float32), None
    small = short * rng.uniform(0.13, 0.16)
    length, start = short * rng.uniform(0.45, 0.7), short * rng.uniform(-0.45, -0.15)
    s = np.clip((u - start) / length, 0, 1)
    radius = large + (small - large) * s * s * (3 - 2 * s)
    return radius.astype(np.float32), float(start + length)


def _make_texture(rng: np.random.Generator, u: Plane, turn: Plane, short: float) -> Plane:
    """Return extrusion lines along the axis, orange peel and a gentle waviness, px."""
    scales = ((30.0, 0.8, 0.03), (1.4, 1.4, 0.014), (20.0, 9.0, 0.5))
    along = np.fft.fftfreq(TEXTURE_PX).astype(np.float32)[:, None]
    around = np.fft.rfftfreq(TEXTURE_PX).astype(np.float32)
    total = np.zeros((TEXTURE_PX, TEXTURE_PX), dtype=np.float32)
    for sigma_u, sigma_v, height_px in scales:
        noise = np.fft.rfft2(rng.standard_normal(total.shape, dtype=np.float32))
        low_pass = np.exp(-2 * np.pi**2 * ((sigma_u * along) ** 2 + (sigma_v * around) ** 2))
        smooth = np.fft.irfft2(noise * low_pass, s=total.shape)
        total += smooth * np.float32(rng.uniform(0.5, 1.3) * height_px / smooth.std())
    places = [u * (180 / short), turn * (TEXTURE_PX / (2 * np.pi))]
    height: Plane = ndimage.map_coordinates(total, places, order=1, mode="grid-wrap")
    return height


def _make_seam(rng: np.random.Generator, u: Plane, turn: Plane, place: float | None) -> Plane:
    """Return the rough ring of a weld seam, px."""
    if place is None:
        return np.zeros_like(u)
    width: float = rng.uniform(5, 9)
    ring = np.exp(-(((u - place) / width) ** 2))
    knots = sum(np.sin(turn * k + rng.uniform(0, 6)) / k for k in (5.0, 9.0, 14.0))
    grain = ndimage.gaussian_filter(rng.standard_normal(u.shape, dtype=np.float32), 1.5)
    rough: Plane = ring * (1.6 + 0.5 * knots + 1.2 * grain)
    return rough.astype(np.float32)


def _make_print(rng: np.random.Generator, u: Plane, turn: Plane, short: float) -> Plane:
    """Return depth marks printed round the shaft: rings and short dashes."""
    pitch, width = short * rng.uniform(0.35, 0.5), short * rng.uniform(0.02, 0.035)
    place = (u + rng.uniform(0, 1) * pitch) % pitch
    ring = soft(width - np.abs(place - pitch / 2), 1.2)
    ragged = soft(np.abs(turn) - rng.uniform(0, 0.25), 0.05)
    dash = soft(width * 0.4 - np.abs(place - pitch / 2 - 3 * width), 1.2)
    dash = dash * soft(0.35 - np.abs(turn - rng.uniform(-0.4, 0.4)), 0.05)
    ink: Plane = np.maximum(ring * (0.6 + 0.4 * ragged), dash) * rng.uniform(0.6, 0.95)
    return ink.astype(np.float32)


def _make_band(rng: np.random.Generator, u: Plane, short: float) -> Plane:
    """Return where a radiopaque marker band sits on the inner tube (in half of the parts)."""
    if rng.random() < 0.5:
        return np.zeros_like(u)
    centre = short * rng.uniform(-0.3, 0.3)
    return soft(short * rng.uniform(0.03, 0.05) - np.abs(u - centre), 1.0)


def _make_background(rng: np.random.Generator, x: Plane, y: Plane, short: float) -> Plane:
    """Return the dark ground with a soft gradient and blurred glints far out of focus."""
    level, direction = rng.uniform(0.004, 0.022), rng.uniform(0, 2 * np.pi)
    along = (np.cos(direction) * x + np.sin(direction) * y) / short
    ground: Plane = level * (1 + 0.6 * np.tanh(along))
    for _ in range(rng.integers(0, 4)):
        radius = short * rng.uniform(0.03, 0.08)
        dx, dy = x - rng.uniform(-0.6, 0.6) * short, y - rng.uniform(-0.6, 0.6) * short
        disc = soft(radius - np.hypot(dx, dy), radius * 0.3)
        ground = ground + rng.uniform(0.004, 0.02) * disc
    return ground.astype(np.float32)


def _light_fall_off(x: Plane, y: Plane, lamps: Lamps, size: float) -> Plane:
    fall_off = 1 - 0.9 * (x * x + y * y) / (size * size)
    light: Plane = fall_off * (1 + (lamps.slope[0] * x + lamps.slope[1] * y) / size)
    return light.astype(np.float32)


def soft(distance: Plane, width: Plane | float) -> Plane:
    """Return 0..1, a step at distance 0 softened over a width."""
    step: Plane = np.clip(distance / width * 0.5 + 0.5, 0, 1).astype(np.float32)
    return step


WHITE = np.array([1.0, 0.97, 0.92], dtype=np.float32)
COOL = np.array([0.85, 0.95, 1.0], dtype=np.float32)
INK = np.array([0.75, 0.62, 0.4], dtype=np.float32)
"""Share of red, green and blue that printed marks absorb."""
FULL_WELL_ELECTRONS = 6000.0
READ_NOISE = 0.004
BLOOM_PX = 5.0
BLOOM_SHARE = 0.12
GAMMA = 2.2


@dataclass(frozen=True, kw_only=True)
class Relief:
    """What a defect does to the surface.

    Attributes:
        height_px: How far the surface stands out.
        scatter: Light that it sends to the camera from any lamp, share of white.
        absorb: Share of the light that it swallows.
        tint: Colour of what is scattered.
    """

    height_px: Plane
    scatter: Plane
    absorb: Plane
    tint: Colour


def radiance(scene: Scene, relief: Relief | None = None) -> Colour:
    """Return the light that reaches a perfect camera, before blur and noise."""
    t = np.clip(scene.across, -0.9995, 0.9995)
    inside = soft(1 - np.abs(scene.across), 1.2 / scene.radius)
    slope_u, slope_v = _slopes(scene, scene.texture + (relief.height_px if relief else 0))
    mirror = _mirror(scene, t, slope_u, slope_v)
    through = np.exp(-1.2 * scene.milk * _path(t, scene.wall))
    back_u, back_v = _slopes(scene, scene.back)
    rim = 1 - 0.6 * np.exp(-(((1 - np.abs(t)) / 0.02) ** 2))
    glow = (1 - through) * rim
    body = 0.55 * glow + 0.25 * _mirror(scene, -t, back_u, back_v)
    deep = scene.behind * 0.9 + _inner_tube(scene)
    wall = body[..., None] * scene.tint + (deep * through)[..., None]
    if relief is not None:
        wall = wall * (1 - relief.absorb)[..., None] + relief.scatter[..., None] * relief.tint
    wall = wall * (1 - scene.ink[..., None] * INK) + mirror[..., None] * WHITE
    behind = scene.behind[..., None] * COOL
    light: Colour = (behind + (wall - behind) * inside[..., None]) * scene.light[..., None]
    return light


def blurred(scene: Scene, light: Colour) -> Colour:
    """Return the light as a lens of limited depth of field forms it."""
    t = np.clip(scene.across, -1, 1)
    depth = np.sqrt(1 - t * t) * scene.radius / scene.radius.max()
    blur = np.abs(depth - scene.focus) * scene.defocus + 0.5
    levels = (0.5, 1.1, 2.2, 4.4)
    stack = [ndimage.gaussian_filter(light, (s, s, 0), truncate=3) for s in levels]
    place = np.clip(np.log2(blur / 0.55), 0, 2.999)
    result = np.zeros_like(light)
    for index, layer in enumerate(stack):
        result += layer * np.clip(1 - np.abs(place - index), 0, 1)[..., None]
    return result


def _slopes(scene: Scene, height: Plane) -> tuple[Plane, Plane]:
    """Return the slope of a height field along u and v."""
    gradient: tuple[Plane, ...] = tuple(np.gradient(height))
    down, right = gradient
    cos, sin = math.cos(scene.angle_rad), math.sin(scene.angle_rad)
    return right * cos + down * sin, down * cos - right * sin


def _mirror(scene: Scene, t: Plane, slope_u: Plane, slope_v: Plane) -> Plane:
    """Return the lamps' mirror image on a wall with slopes on top of its round shape."""
    lamps = scene.lamps
    widening, _ = _slopes(scene, scene.radius)
    nu, nv, nz = -widening - slope_u, t - slope_v, np.sqrt(1 - t * t)
    norm = 1 / np.sqrt(nu * nu + nv * nv + nz * nz)
    nu, nv, nz = nu * norm, nv * norm, nz * norm
    tilt = np.arccos(np.clip(2 * nz * nz - 1, -1, 1))
    uneven = 1 + lamps.unevenness * np.cos(np.arctan2(nv, nu) - lamps.azimuth_rad)
    ring = _lobe(tilt - lamps.ring_rad, lamps.ring_width_rad) * uneven
    halo = 0.05 * np.exp(-(((tilt - lamps.ring_rad) / 0.5) ** 2)) * uneven
    side = np.arctan2(2 * nz * nv, 2 * nz * nz - 1) - lamps.bar_rad
    bar = lamps.bar_power * _lobe(side, lamps.bar_width_rad) * np.exp(-((2.2 * nu * nz) ** 2))
    fresnel = 0.35 + 0.65 * (1 - nz) ** 5
    light: Plane = scene.gloss * fresnel * (1.3 * ring + halo + bar)
    return light.astype(np.float32)


def _lobe(off_rad: Plane, width_rad: float) -> Plane:
    """Return a Gaussian, widened and dimmed where it would be narrower than a pixel."""
    down, right = np.gradient(off_rad)
    squared = width_rad**2 + 0.5 * (down * down + right * right)
    lobe: Plane = width_rad / np.sqrt(squared) * np.exp(-(off_rad * off_rad) / squared)
    return lobe


def _path(t: Plane, wall: float) -> Plane:
    """Return the way of a straight ray through a hollow cylinder, in radii over wall thickness."""
    outer, bore = np.sqrt(1 - t * t), np.sqrt(np.maximum((1 - wall) ** 2 - t * t, 0))
    path: Plane = (outer - bore) / wall
    return path


def _inner_tube(scene: Scene) -> Plane:
    """Return the light of the guide-wire tube inside a balloon, with its marker band."""
    if not scene.inner:
        return np.zeros_like(scene.u)
    s = np.clip(scene.v / scene.inner, -0.999, 0.999)
    inside = soft(1 - np.abs(scene.v) / scene.inner, 1.5 / scene.inner)
    glow = 0.30 * (1 - np.exp(-0.35 * _path(s, 0.28)))
    streak = 0.25 * np.exp(-(((s + 0.45) / 0.09) ** 2)) + 0.1 * np.exp(-(((s - 0.5) / 0.1) ** 2))
    tube = inside * (glow + streak)
    metal = inside * scene.metal * (0.12 + 0.55 * np.exp(-(((s + 0.3) / 0.22) ** 2)) - 0.1 * s)
    light: Plane = tube * (1 - scene.metal) + metal
    return light.astype(np.float32)


def display(light: Colour, gain: float = 1.0) -> Colour:
    """Return the noiseless picture, values 0..1, of a linear radiance."""
    shown: Colour = np.clip(light * gain, 0, 1) ** np.float32(1 / GAMMA)
    return shown


def photograph(light: Colour, gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture, uint8, shape (height, width, 3).

    Args:
        light: Linear radiance, 1 is white at a gain of 1.
        gain: Exposure.
        rng: Draws shot and read noise.
    """
    caught = light * np.float32(gain)
    over = np.maximum(caught - 0.9, 0).mean(axis=2)
    bloom = ndimage.gaussian_filter(over, BLOOM_PX, truncate=3) * np.float32(BLOOM_SHARE)
    caught = np.clip(caught + bloom[..., None], 0, 1)
    noise = rng.standard_normal(caught.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.45, 0.45, 0), truncate=2.3)  # colour interpolation
    caught += noise * np.sqrt(caught / FULL_WELL_ELECTRONS + READ_NOISE**2)
    return (display(caught) * 255 + 0.5).astype(np.uint8)
