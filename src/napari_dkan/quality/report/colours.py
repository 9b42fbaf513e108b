"""Colours of values: safe for the colour-blind, dark enough on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .markup import Markup, number, tag

LEVELS = 64  # colours told apart; so many are more than an eye can
PERCENTILES = (2.0, 98.0)  # as the maps in the viewer

# Nine colours each, evenly spaced; between them they are mixed.
VALUES = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"  # viridis
DIFFERENCES = "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"  # blue, white, red
ERRORS = "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704"  # oranges


@dataclass(frozen=True)
class Scale:
    """Which colour a value has. colours : one of the above; low, high : of its ends."""

    colours: str
    low: float
    high: float

    def levels(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """(N,) -> (N,) from 0 to LEVELS - 1; values off the scale take its ends, NaN is -1."""
        known = np.isfinite(values)
        share = (np.where(known, values, self.low) - self.low) / (self.high - self.low)
        found = np.clip(np.floor(share * LEVELS), 0, LEVELS - 1).astype(np.int64)
        return np.where(known, found, -1)

    def palette(self) -> list[str]:
        """``#rrggbb`` of each level."""
        anchors = np.array([list(bytes.fromhex(c)) for c in self.colours.split()], float)
        at = np.linspace(0, len(anchors) - 1, LEVELS)
        mixed = [np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)]
        return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(np.stack(mixed, 1)).astype(int)]


def shared_scale(values: Sequence[NDArray[np.floating]]) -> Scale:
    """One scale for several maps, from their values together without the extremes."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(known):
        return Scale(VALUES, 0.0, 1.0)
    low, high = (float(v) for v in np.percentile(known, PERCENTILES))
    return Scale(VALUES, low, high) if high - low > 1e-6 else Scale(VALUES, low - 0.05, low + 0.05)


def residual_scale(values: NDArray[np.floating]) -> Scale:
    """Centred on 0, alike in both directions."""
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(known, PERCENTILES[1])), 1e-3) if len(known) else 1.0
    return Scale(DIFFERENCES, -reach, reach)


def error_scale(values: NDArray[np.floating]) -> Scale:
    """From 0."""
    known = values[np.isfinite(values)]
    high = float(np.percentile(known, PERCENTILES[1])) if len(known) else 1.0
    return Scale(ERRORS, 0.0, max(high, 1e-6))


def colour_bar(scale: Scale, units: str, width: float, y: float) -> Markup:
    """A bar with five numbers and what they measure, 52 units high, in a drawing this wide."""
    left, right = 27.0, width - 27.0
    step = (right - left) / LEVELS
    cells = [
        # one px wider than its step, or thin gaps show between them
        tag("rect", x=left + i * step, y=y, width=step + (i < LEVELS - 1), height=11, fill=colour)
        for i, colour in enumerate(scale.palette())
    ]
    digits = 2 if scale.high - scale.low >= 0.1 else 3
    ticks = [
        tag(
            "text",
            number(scale.low + share * (scale.high - scale.low), digits),
            x=left + share * (right - left),
            y=y + 26,
            text_anchor="middle",
        )
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    label = tag("text", units, x=width / 2, y=y + 44, text_anchor="middle", class_="units")
    frame = tag("rect", x=left, y=y, width=right - left, height=11, class_="frame")
    return tag("g", cells, frame, ticks, label)
