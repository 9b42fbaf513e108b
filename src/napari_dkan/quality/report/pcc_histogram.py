"""Histogram of the correlations of all genes, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .svg_markup import SafeMarkup, build_element, format_decimal

WIDTH, HEIGHT = 560.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 26.0, 42.0
BIN_WIDTH = 0.05


def draw_pcc_histogram(
    dkan: NDArray[np.floating], ridge: NDArray[np.floating] | None
) -> SafeMarkup:
    """A histogram of per-gene PCC (G,), NaN left out, with ridge's as a line over it."""
    known = [np.asarray(v, float) for v in (dkan, ridge) if v is not None]
    known = [v[np.isfinite(v)] for v in known]
    edges = _bin_edges(np.concatenate(known))
    counts = [np.histogram(v, edges)[0] for v in known]
    most = max(int(max(c.max() for c in counts)), 1)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if most <= 5 * s)
    top = -(-most // step) * step

    def x(value: float) -> float:
        return LEFT + (value - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM)

    bars = [
        build_element(
            "rect", x=x(a) + 0.5, y=y(n), width=x(b) - x(a) - 1, height=y(0) - y(n), class_="bar"
        )
        for a, b, n in zip(edges[:-1], edges[1:], counts[0].tolist(), strict=True)
        if n
    ]
    parts = [*_draw_axes(edges, range(0, top + 1, step), x, y), *bars]
    if len(known) > 1:
        d = f"M{x(edges[0]):.1f} {y(0):.1f}" + "".join(
            f"V{y(n):.1f}H{x(b):.1f}" for b, n in zip(edges[1:], counts[1].tolist(), strict=True)
        )
        parts.append(build_element("path", d=f"{d}V{y(0):.1f}", class_="step"))
    for values, name in zip(known, ("dkan", "ridge"), strict=False):
        if len(values):
            at = x(float(np.median(values)))
            parts.append(
                build_element(
                    "path", d=f"M{at:.1f} {TOP - 4:g}V{y(0):.1f}", class_=f"median {name}"
                )
            )
    return build_element(
        "figure",
        build_element("figcaption", f"Correlation of {len(known[0])} genes"),
        build_element(
            "svg",
            parts,
            _draw_legend([(n, v) for n, v in zip(("DKAN", "ridge"), known, strict=False)]),
            viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
            role="img",
            aria_label="Histogram of the correlation of each gene",
        ),
    )


def _bin_edges(values: NDArray[np.floating]) -> NDArray[np.float64]:
    low, high = (-BIN_WIDTH, BIN_WIDTH) if not len(values) else (values.min(), values.max())
    first, last = min(np.floor(low / BIN_WIDTH), 0), max(np.ceil(high / BIN_WIDTH), 1)
    return np.arange(first, last + 1) * BIN_WIDTH


def _draw_axes(edges: NDArray[np.float64], counts: range, x, y) -> list[SafeMarkup]:  # type: ignore[no-untyped-def]
    parts = []
    for count in counts:
        parts.append(
            build_element("path", d=f"M{LEFT:g} {y(count):.1f}H{WIDTH - RIGHT:g}", class_="grid")
        )
        parts.append(build_element("text", count, x=LEFT - 6, y=y(count) + 4, text_anchor="end"))
    every = 0.1 if edges[-1] - edges[0] < 1.2 else 0.2
    first, last = (int(np.ceil(edges[0] / every - 1e-6)), int(edges[-1] / every + 1e-6))
    for tick in range(first, last + 1):
        at = x(tick * every)
        parts.append(build_element("path", d=f"M{at:.1f} {y(0):.1f}v4", class_="axis"))
        label = format_decimal(tick * every, 1)
        parts.append(build_element("text", label, x=at, y=y(0) + 17, text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    below = "PCC of predicted and measured over the spots"
    parts.append(
        build_element("text", below, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="units")
    )
    turned = f"translate(12 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)"
    parts.append(
        build_element("text", "genes", transform=turned, text_anchor="middle", class_="units")
    )
    return parts


def _draw_legend(methods: Sequence[tuple[str, NDArray[np.floating]]]) -> SafeMarkup:
    parts, at = [], LEFT
    for name, values in methods:
        middle = format_decimal(float(np.median(values)) if len(values) else None, 2)
        text = f"{name}, median {middle}"
        kind = "bar" if name == "DKAN" else "step"
        parts.append(build_element("rect", x=at, y=4, width=12, height=11, class_=kind))
        parts.append(build_element("text", text, x=at + 18, y=14))
        at += 190
    return build_element("g", parts)
