"""From amounts of stain to a scanned image, by the Beer-Lambert law.

Each section has its own stain strengths, hues, glass colour, sharpness and noise, as slides
from one laboratory do from day to day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .layout import ScalarField

# Optical density per unit of stain in red, green, blue: typical values after Macenko et al. 2009.
HAEMATOXYLIN = (0.61, 0.76, 0.36)
EOSIN = (0.12, 0.78, 0.48)


@dataclass(frozen=True)
class Staining:
    """How one section was stained and scanned."""

    h_strength: float
    e_strength: float
    h_colour: tuple[float, float, float]
    e_colour: tuple[float, float, float]
    glass: tuple[float, float, float]  # empty slide, 0..255
    blur_px: float
    noise: float  # standard deviation, grey levels


def draw_staining(rng: np.random.Generator) -> Staining:
    """One section's staining: strengths vary by about 12 %, hues by a few percent."""

    def hue(colour: tuple[float, float, float]) -> tuple[float, float, float]:
        r, g, b = (c + rng.normal(0, 0.018) for c in colour)
        return r, g, b

    grey = rng.uniform(240, 246)
    return Staining(
        float(np.exp(rng.normal(0, 0.12))),
        float(np.exp(rng.normal(0, 0.12))),
        hue(HAEMATOXYLIN),
        hue(EOSIN),
        (grey, grey - rng.uniform(0, 2.5), grey + rng.uniform(-1, 1.5)),
        rng.uniform(0.55, 0.8),
        rng.uniform(1.2, 2.0),
    )


def render_rgb(rng: np.random.Generator, h: ScalarField, e: ScalarField, staining: Staining) -> NDArray[np.uint8]:
    """The image (height, width, 3) of these stain maps; works in bands to stay small in memory."""
    from scipy.ndimage import gaussian_filter

    height, width = h.shape
    image = np.empty((height, width, 3), np.uint8)
    halo = 4
    # Uneven light over the field, a percent or so.
    across = np.linspace(-1, 1, width, dtype=np.float32)
    for top in range(0, height, 512):
        stop = min(height, top + 512)
        low, high = max(0, top - halo), min(height, stop + halo)
        inner = slice(top - low, stop - low)
        band_h = gaussian_filter(h[low:high], staining.blur_px)[inner] * staining.h_strength
        band_e = gaussian_filter(e[low:high], staining.blur_px)[inner] * staining.e_strength
        down = np.linspace(-1, 1, height, dtype=np.float32)[top:stop, None]
        light = 1 - 0.008 * (across**2 + down**2)
        grain = rng.standard_normal(band_h.shape, dtype=np.float32) * staining.noise
        for channel in range(3):
            density = staining.h_colour[channel] * band_h + staining.e_colour[channel] * band_e
            value = staining.glass[channel] * light * np.exp(-density)
            value += grain + 0.5 * np.roll(grain, 7 * (channel + 1), axis=1)
            image[top:stop, :, channel] = np.clip(value + 0.5, 0, 255).astype(np.uint8)
    return image
