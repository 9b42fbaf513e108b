"""What context windows change: a section seen as one window, and through windows half as wide.

No section at hand is much larger than a window, so smaller ones are forced on it. Prints how alike
the two maps are, and how far neighbouring tiles are apart where both are nearest to one window and
across the line halfway between two, where a border would be seen. Of both the map as one window is
given too: what its tissue differs there, without any window.
"""

from __future__ import annotations

import time

import numpy as np
from section import best_section


def main() -> None:
    from napari_dkan.inference.context_layout import ContextWindowLayout
    from napari_dkan.inference.global_context import CAPTURE_AREA_UM
    from napari_dkan.inference.predict import find_tissue_region, predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.slide import open_slide

    section = best_section()
    checkpoint, mpp = load_checkpoint(section.checkpoint), section.mpp
    with open_slide(section.image) as slide:
        size = slide.width, slide.height
        tissue = find_tissue_region(slide, mpp)
        target = target_from_region(tissue, checkpoint.patch.um, mpp, *size)
        maps = []
        for side in (max(size), CAPTURE_AREA_UM / mpp / 2):
            predictor = Predictor(slide, checkpoint, mpp, tissue, "cpu")
            layout = ContextWindowLayout(side, *size)
            predictor.global_context.window_layout = layout
            start = time.perf_counter()
            maps.append(predict(predictor, target).values)
            seconds = time.perf_counter() - start
            print(f"{len(target)} tiles, windows of {side:.0f} px: {seconds:.1f} s")
    groups = nearest_windows(layout, target.spots.xy)
    whole, parts = maps
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(whole.T, parts.T, strict=True)]
    print(f"\n{section.name}, dense, {len(np.unique(groups, axis=0))} windows of half the width")
    print(f"correlation with one window: mean {np.mean(alike):.3f}, least {min(alike):.3f}\n")
    print("| neighbours | pairs | step, windows | step, one window |\n|---|---|---|---|")
    pairs = neighbours(target.grid.cells)
    same = (groups[pairs[:, 0]] == groups[pairs[:, 1]]).all(axis=1)
    for name, chosen in (("in one window", pairs[same]), ("across a border", pairs[~same])):
        steps = [step(values, chosen, whole.std(axis=0)) for values in (parts, whole)]
        print(f"| {name} | {len(chosen)} | {steps[0]:.3f} | {steps[1]:.3f} |")
    print("\nSteps are mean differences in standard deviations of the map.")


def nearest_windows(layout, xy):
    """(N, 2) column and row of the window whose center is nearest to each point."""
    zones = layout.find_zones(xy)
    nearest = np.empty_like(zones)
    for zone in {(int(column), int(row)) for column, row in zones}:
        rows = (zones == zone).all(axis=1)
        windows = np.array(layout.list_windows(zone))
        nearest[rows] = windows[layout.compute_weights(xy[rows], zone).argmax(axis=1)]
    return nearest


def neighbours(cells):
    """(P, 2) rows of cells that lie side by side."""
    row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
    beside = [((x, y), (x + dx, y + dy)) for x, y in row_of for dx, dy in ((1, 0), (0, 1))]
    return np.array([(row_of[a], row_of[b]) for a, b in beside if b in row_of])


def step(values, pairs, spread) -> float:
    return float((np.abs(values[pairs[:, 0]] - values[pairs[:, 1]]) / spread).mean())


if __name__ == "__main__":
    main()
