"""Colours of values: safe for the colour-blind, dark enough on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .markup import SafeMarkup, format_decimal, build_element

N_COLOR_LEVELS = 64  # colours told apart; so many are more than an eye can
CLIP_PERCENTILES = (2.0, 98.0)  # as the maps in the viewer

# Nine colours each, evenly spaced; between them they are mixed.
VIRIDIS = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"  # viridis
BLUE_WHITE_RED = "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"  # blue, white, red
ORANGES = "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704"  # oranges


@dataclass(frozen=True)
class MapColorScale:
    """Which colour a value has. colours : one of the above; low, high : of its ends."""

    anchors: str
    low: float
    high: float

    def to_levels(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """(N,) -> (N,) from 0 to LEVELS - 1; values off the scale take its ends, NaN is -1."""
        known = np.isfinite(values)
        share = (np.where(known, values, self.low) - self.low) / (self.high - self.low)
        found = np.clip(np.floor(share * N_COLOR_LEVELS), 0, N_COLOR_LEVELS - 1).astype(np.int64)
        return np.where(known, found, -1)

    def palette(self) -> list[str]:
        """``#rrggbb`` of each level."""
        anchors = np.array([list(bytes.fromhex(c)) for c in self.anchors.split()], float)
        at = np.linspace(0, len(anchors) - 1, N_COLOR_LEVELS)
        mixed = [np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)]
        return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(np.stack(mixed, 1)).astype(int)]


def fit_shared_scale(values: Sequence[NDArray[np.floating]]) -> MapColorScale:
    """One scale for several maps, from their values together without the extremes."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(known):
        return MapColorScale(VIRIDIS, 0.0, 1.0)
    low, high = (float(v) for v in np.percentile(known, CLIP_PERCENTILES))
    return MapColorScale(VIRIDIS, low, high) if high - low > 1e-6 else MapColorScale(VIRIDIS, low - 0.05, low + 0.05)


def fit_residual_scale(values: NDArray[np.floating]) -> MapColorScale:
    """Centred on 0, alike in both directions."""
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(known, CLIP_PERCENTILES[1])), 1e-3) if len(known) else 1.0
    return MapColorScale(BLUE_WHITE_RED, -reach, reach)


def fit_error_scale(values: NDArray[np.floating]) -> MapColorScale:
    """From 0."""
    known = values[np.isfinite(values)]
    high = float(np.percentile(known, CLIP_PERCENTILES[1])) if len(known) else 1.0
    return MapColorScale(ORANGES, 0.0, max(high, 1e-6))


def draw_color_bar(scale: MapColorScale, units: str, width: float, y: float) -> SafeMarkup:
    """A bar with five numbers and what they measure, 52 units high, in a drawing this wide."""
    left, right = 27.0, width - 27.0
    step = (right - left) / N_COLOR_LEVELS
    cells = [
        # one px wider than its step, or thin gaps show between them
        build_element("rect", x=left + i * step, y=y, width=step + (i < N_COLOR_LEVELS - 1), height=11, fill=colour)
        for i, colour in enumerate(scale.palette())
    ]
    digits = 2 if scale.high - scale.low >= 0.1 else 3
    ticks = [
        build_element(
            "text",
            format_decimal(scale.low + share * (scale.high - scale.low), digits),
            x=left + share * (right - left),
            y=y + 26,
            text_anchor="middle",
        )
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    label = build_element("text", units, x=width / 2, y=y + 44, text_anchor="middle", class_="units")
    frame = build_element("rect", x=left, y=y, width=right - left, height=11, class_="frame")
    return build_element("g", cells, frame, ticks, label)
