"""Histogram of the correlations of all genes, laid out in drawing units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...model.methods.method_configs import DKAN_METHOD, TITLES

WIDTH, HEIGHT = 560.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 14.0, 26.0, 42.0
BIN_WIDTH = 0.05
_LEGEND_STEP = 190.0
_COUNT_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class PccHistogram:
    """A histogram; ``templates/figures.html.j2`` draws it.

    Attributes
    ----------
    n_genes : int
        Genes that have a correlation.
    baseline : float
        y of the axis.
    count_ticks : list of (float, int)
        y and number of genes.
    pcc_ticks : list of (float, float)
        x and PCC.
    bars : list of (float, float, float, float)
        x, y, width and height of the bars of DKAN.
    ridge_path : str
        Outline of the histogram of ridge, "" without it.
    medians : list of (str, float)
        Method and x, where a method has a median.
    legend : list of (float, str, float)
        x, title of a method, and its median (NaN without one).
    title : str
        Name of the correlation.
    """

    n_genes: int
    baseline: float
    count_ticks: list[tuple[float, int]]
    pcc_ticks: list[tuple[float, float]]
    bars: list[tuple[float, float, float, float]]
    ridge_path: str
    medians: list[tuple[str, float]]
    legend: list[tuple[float, str, float]]
    title: str = "PCC"
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP

    @property
    def view_box(self) -> str:
        """Extent of the drawing."""
        return f"0 0 {self.width:g} {self.height:g}"

    @property
    def count_label_transform(self) -> str:
        """Transform of the label of the axis of counts."""
        return f"translate(12 {(self.top + self.baseline) / 2:g}) rotate(-90)"


def make_pcc_histogram(
    dkan: NDArray[np.floating],
    ridge: NDArray[np.floating] | None,
    title: str = "PCC",
    method: str = TITLES[DKAN_METHOD],
) -> PccHistogram:
    """Lay out the histogram of the PCC of each gene (G,); NaN is left out."""
    pcc = [np.asarray(v, float) for v in (dkan, ridge) if v is not None]
    pcc = [v[np.isfinite(v)] for v in pcc]
    edges = _bin_edges(np.concatenate(pcc))
    counts = [np.histogram(v, edges)[0] for v in pcc]
    highest = max(int(max(c.max() for c in counts)), 1)
    step = next(s for s in _COUNT_STEPS if highest <= 5 * s)
    top = -(-highest // step) * step

    def x(value: float) -> float:
        return float(LEFT + (value - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - LEFT - RIGHT))

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM)

    bars = [
        (x(a) + 0.5, y(n), x(b) - x(a) - 1, y(0) - y(n))
        for a, b, n in zip(edges[:-1], edges[1:], counts[0].tolist(), strict=True)
        if n
    ]
    ridge_path = ""
    if ridge is not None:
        steps = "".join(
            f"V{y(n):.1f}H{x(b):.1f}" for b, n in zip(edges[1:], counts[1].tolist(), strict=True)
        )
        ridge_path = f"M{x(edges[0]):.1f} {y(0):.1f}{steps}V{y(0):.1f}"
    tick_step = 0.1 if edges[-1] - edges[0] < 1.2 else 0.2
    first, last = int(np.ceil(edges[0] / tick_step - 1e-6)), int(edges[-1] / tick_step + 1e-6)
    medians = [float(np.median(v)) if len(v) else float("nan") for v in pcc]
    titles = (method, "ridge")[: len(pcc)]
    return PccHistogram(
        n_genes=len(pcc[0]),
        baseline=y(0),
        count_ticks=[(y(count), count) for count in range(0, top + 1, step)],
        pcc_ticks=[(x(i * tick_step), i * tick_step) for i in range(first, last + 1)],
        bars=bars,
        ridge_path=ridge_path,
        medians=[
            (css_class, x(median))
            for css_class, median in zip(("dkan", "ridge"), medians, strict=False)
            if median == median
        ],
        legend=[
            (LEFT + i * _LEGEND_STEP, method, median)
            for i, (method, median) in enumerate(zip(titles, medians, strict=True))
        ],
        title=title,
    )


def _bin_edges(values: NDArray[np.floating]) -> NDArray[np.float64]:
    low, high = (values.min(), values.max()) if len(values) else (-BIN_WIDTH, BIN_WIDTH)
    first, last = min(np.floor(low / BIN_WIDTH), 0), max(np.ceil(high / BIN_WIDTH), 1)
    return np.arange(first, last + 1) * BIN_WIDTH
