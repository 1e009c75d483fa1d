"""Dead leaves: synthetic patches with the occlusions, scales and colours of photographs.

Source: Lee, Mumford and Huang 2001 (Occlusion models for natural images, IJCV 41): opaque disks fall on one another,
their radii distributed as r^-3, so that nothing in the picture has a preferred size. Each patch is a small world of
its own, with its own scale, light, contrast, saturation, sharpness and noise. A leaf has one colour (light and two
opponent chromas, all in logarithms, where those of photographs are nearly normal), a slope of light across it and a
texture with a falling spectrum. Light is turned into pixels as a camera does: blur, shoulder, gamma, noise, rounding.

A patch depends on (seed, its index) alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

PATCH_PX = 50
LEAVES = 160
"""Disks of one patch; they cover it about five times over."""

_MARGIN_PX = 4
"""Painted around the patch and cut off, so that the blur, which goes round the edges, brings nothing in."""
_SIDE_PX = PATCH_PX + 2 * _MARGIN_PX
_RADII_PX = np.geomspace(3.0, 300.0, 512)
_AXIS_PX = np.arange(_SIDE_PX, dtype=np.float32)
_FREQUENCY_Y = np.fft.fftfreq(_SIDE_PX)[:, None]
_FREQUENCY_X = np.fft.rfftfreq(_SIDE_PX)[None, :]
_MIDDLE_LIGHT = 0.13
_CHROMA_OF_PATCH = (0.22, 0.35)
_CHROMA_OF_LEAF = (0.16, 0.26)
"""Standard deviations of log red-green and log yellow-blue at saturation 1."""

Float = NDArray[np.float64]


def dead_leaves(count: int, *, seed: int, progress: Callable[[int, int], None] | None = None) -> NDArray[np.uint8]:
    """``count`` patches, (count, 50, 50, 3) uint8 RGB. The first patches of a larger count are the same."""
    patches = np.empty((count, PATCH_PX, PATCH_PX, 3), np.uint8)
    for index in range(count):
        patches[index] = _patch(np.random.default_rng((seed, index)))
        if progress is not None and (index % 50 == 49 or index == count - 1):
            progress(index + 1, count)
    return patches


def _patch(random: np.random.Generator) -> NDArray[np.uint8]:
    leaf = _fallen_leaves(random)
    contrast = random.lognormal(-0.1, 0.4)
    light = random.normal(0.0, 0.4) + contrast * random.standard_normal(LEAVES)
    slope_per_px = contrast * 0.6 / PATCH_PX * random.standard_normal((2, LEAVES))
    roughness = np.sqrt(contrast) * 0.3 * np.abs(random.standard_normal(LEAVES))
    saturation = min(random.lognormal(-0.3, 0.9), 2.5)
    chroma = saturation * (
        random.standard_normal((1, 2)) * _CHROMA_OF_PATCH + random.standard_normal((LEAVES, 2)) * _CHROMA_OF_LEAF
    )
    from_centre = _AXIS_PX - _SIDE_PX / 2
    log_light = light[leaf] + slope_per_px[0, leaf] * from_centre[:, None] + slope_per_px[1, leaf] * from_centre
    log_light = log_light + roughness[leaf] * _texture(random)
    red_green, yellow_blue = chroma[leaf, 0], chroma[leaf, 1]
    colours = np.stack(
        [
            log_light + red_green + 0.5 * yellow_blue,
            log_light - 0.6 * red_green + 0.5 * yellow_blue,
            log_light - yellow_blue,
        ]
    )
    return _photograph(_MIDDLE_LIGHT * np.exp(colours), random)


def _fallen_leaves(random: np.random.Generator) -> NDArray[np.intp]:
    """Which of the leaves is on top at each pixel, (side, side); leaf 0 lies on top, the last lies under all."""
    # Of disks all over the plane, those of radius r that reach the square are as many as the square grown by r.
    weights = np.cumsum(_RADII_PX**-3 * (_SIDE_PX + 2 * _RADII_PX) ** 2 * _RADII_PX)  # the last: geometric spacing
    radius = np.interp(random.random(LEAVES), weights / weights[-1], _RADII_PX) * random.lognormal(0.5, 0.6)
    y, x = random.random((2, LEAVES)) * (_SIDE_PX + 2 * radius) - radius
    reach = (radius**2).astype(np.float32)
    reach[-1] = np.inf
    dy = (_AXIS_PX[:, None] - y.astype(np.float32)) ** 2
    dx = (_AXIS_PX[:, None] - x.astype(np.float32)) ** 2
    on_top: NDArray[np.intp] = np.argmax(dy[:, None, :] + dx[None, :, :] < reach, axis=-1)
    return on_top


def _texture(random: np.random.Generator) -> Float:
    """Noise of unit variance whose amplitude falls with frequency, drawn out in some direction; (side, side)."""
    direction = random.uniform(0.0, np.pi)
    length = random.lognormal(0.0, 0.5)
    along = (_FREQUENCY_X * np.cos(direction) + _FREQUENCY_Y * np.sin(direction)) * length
    across = (_FREQUENCY_Y * np.cos(direction) - _FREQUENCY_X * np.sin(direction)) / length
    frequency = np.maximum(np.hypot(along, across), 1.0 / _SIDE_PX)
    amplitude = frequency ** -random.uniform(0.8, 1.6)
    amplitude[0, 0] = 0.0
    spectrum = amplitude * np.exp(2j * np.pi * random.random(amplitude.shape))
    field: Float = np.fft.irfft2(spectrum, s=(_SIDE_PX, _SIDE_PX))
    field /= field.std()
    return field


def _photograph(light: Float, random: np.random.Generator) -> NDArray[np.uint8]:
    """Light (3, side, side), linear, to a patch (50, 50, 3) uint8."""
    light = light / (1.0 + 0.5 * light)
    blur_px = random.lognormal(-0.2, 0.5)
    blur = np.exp(-2.0 * (np.pi * blur_px) ** 2 * (_FREQUENCY_Y**2 + _FREQUENCY_X**2))
    light = np.fft.irfft2(np.fft.rfft2(light) * blur, s=(_SIDE_PX, _SIDE_PX))
    light = light[:, _MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
    noise = random.uniform(0.0, 2.5) * random.standard_normal(light.shape)
    pixels = 255.0 * np.clip(light, 0.0, 1.0) ** (1.0 / 2.2) + noise
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)
