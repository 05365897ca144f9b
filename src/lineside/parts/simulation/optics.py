"""The optics of a translucent part under dark-field lamps, and the camera that records it.

Light that reaches the camera is the sum of mirror reflections of the lamps on the front and the
back wall, of light scattered in the wall, and of what lies behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.simulation.scene import Colour, Plane, Scene, soft

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
