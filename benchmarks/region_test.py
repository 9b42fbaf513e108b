"""False positives and power of the comparison of two regions, on simulated tissue.

    python benchmarks/region_test.py

Smooth noise is the same everywhere, so that every p below 0.05 is a false positive. A naive test
(Mann and Whitney, every tile by itself) is beside it. `length` is the standard deviation of the
smoothing in pitches; tiles are correlated by 0.2 at 2.5 lengths.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_dkan.quality import region_comparison
from napari_dkan.quality.region_comparison import compare_regions

LEVEL = 0.05


def smooth_noise(side: int, length: float, n_genes: int, random: np.random.Generator):
    """Noise (side^2, genes) of variance 1, smoothed without an edge."""
    from scipy.ndimage import gaussian_filter

    margin = int(4 * length) + 1
    field = random.normal(size=(n_genes, side + 2 * margin, side + 2 * margin))
    field = gaussian_filter(field, (0, length, length))[:, margin:-margin, margin:-margin]
    return (field / field.std()).reshape(n_genes, -1).T


def layouts(xy, side: int):
    """Two halves, two discs, a disc and the rest, and twelve glands and the rest."""
    centre, width = xy / side, 1.0

    def disc(x, y, radius):
        return ((centre - [x, y]) ** 2).sum(axis=1) < (radius * width) ** 2

    half, left, right = centre[:, 0] < 0.5, disc(0.3, 0.3, 0.25), disc(0.7, 0.65, 0.25)
    glands = np.any(
        [disc(x, y, 0.07) for x in (0.15, 0.4, 0.65, 0.9) for y in (0.2, 0.5, 0.8)], axis=0
    )
    return {
        "two halves": (half, ~half),
        "two discs": (left, right),
        "disc and rest": (left, ~left),
        "glands and rest": (glands, ~glands),
    }


def main() -> None:
    from scipy.stats import mannwhitneyu

    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--fields", type=int, default=6, help="simulated sections per row")
    ask.add_argument("--sides", type=int, nargs="*", default=[14, 30, 50])
    ask.add_argument("--lengths", type=float, nargs="*", default=[0.3, 1, 2, 3])
    ask.add_argument("--uncorrected", action="store_true", help="as if blocks were independent")
    given = ask.parse_args()
    if given.uncorrected:
        region_comparison._inflation = lambda *parts: 1.0
    region_comparison.N_PERMUTATIONS = 999  # p below 0.05 needs no more
    random = np.random.default_rng(0)
    genes = tuple(f"g{i}" for i in range(30))
    print("| tiles | length | regions | naive | blocks | found (1 SD) | effective blocks |")
    print("|---|---|---|---|---|---|---|")
    for side in given.sides:
        xy = np.stack(np.meshgrid(range(side), range(side)), axis=-1).reshape(-1, 2) + 0.5
        for length in given.lengths:
            rates: dict[str, list] = {}
            for _ in range(given.fields):
                values = smooth_noise(side, length, len(genes), random)
                for name, (a, b) in layouts(xy, side).items():
                    result = compare_regions(values, genes, xy, a, b)
                    planted = compare_regions(values + a[:, None], genes, xy, a, b)
                    row = (
                        (mannwhitneyu(values[a], values[b], axis=0).pvalue < LEVEL).mean(),
                        (result.p_value < LEVEL).mean() if result.is_tested else np.nan,
                        (planted.p_value < LEVEL).mean() if planted.is_tested else np.nan,
                        min(result.blocks_a, result.blocks_b),
                    )
                    rates.setdefault(name, []).append(row)
            for name, rows in rates.items():
                naive, blocks, power, count = np.mean(rows, axis=0)
                print(
                    f"| {side} x {side} | {length:g} | {name} | {naive:.2f} | {blocks:.2f} | "
                    f"{power:.2f} | {count:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
