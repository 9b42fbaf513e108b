"""What can be known of each section: depth alone, noise ceiling, and genes that can be judged.

    python benchmarks/noise_ceiling.py --data DATA

Also the share of genes without any signal that pass as judged: counts drawn with every spot's
total from the section's mean profile. With --median the sections are thinned first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from napari_dkan.expression.count_thinning import thin_section
from napari_dkan.expression.label_scale import PanelCounts, labels_from_section
from napari_dkan.expression.panel import read_panel
from napari_dkan.training.data.section_loading import DEFAULT_LABEL_SCALE, read_section_data
from napari_dkan.training.depth_metrics import depth_alone_pcc
from napari_dkan.training.depth_reference import compute_mean_profile
from napari_dkan.training.metrics import nanmean
from napari_dkan.training.noise_ceiling import compute_noise_ceiling

NAMES = ("C2", "C3", "C4", "C5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sections", nargs="*", default=NAMES)
    parser.add_argument("--median", type=float, help="thin to this median panel total")
    args = parser.parse_args()
    panel = read_panel(args.data / "genes" / "panel_her2st_250.txt")
    print("| section | spots | median total | depth alone | ceiling | judged | noise judged | s |")
    print("|---|---|---|---|---|---|---|---|")
    for data in read_section_data(args.data, list(args.sections)):
        section = data if args.median is None else thin_section(data, panel, args.median)
        labels = labels_from_section(section, panel, DEFAULT_LABEL_SCALE)
        counts, start = labels.counts, time.perf_counter()
        ceiling = compute_noise_ceiling(counts)
        seconds = time.perf_counter() - start
        noise = compute_noise_ceiling(draw_noise(counts))
        print(
            f"| {data.uns['section']} | {len(counts)} | {counts.median_total:,.0f} | "
            f"{nanmean(depth_alone_pcc(labels.values, counts.depth)):.3f} | {ceiling.mean:.3f} | "
            f"{ceiling.is_judged.sum()} of {len(panel)} | {noise.is_judged.mean():.0%} | "
            f"{seconds:.2f} |",
            flush=True,
        )


def draw_noise(counts: PanelCounts, seed: int = 1) -> PanelCounts:
    """Draw counts of the same totals in which no gene has a pattern."""
    rng, profile = np.random.default_rng(seed), compute_mean_profile([counts])
    drawn = [rng.multinomial(int(total), profile) for total in counts.totals]
    return PanelCounts(np.array(drawn, np.float32), counts.array, counts.scale)


if __name__ == "__main__":
    main()
