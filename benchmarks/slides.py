"""Seconds from a slide's path to its overview, to its tissue, and for one spot's window."""

from __future__ import annotations

import time

import numpy as np


def main() -> None:
    from napari_dkan.errors import DkanError
    from napari_dkan.samples import fetch_her2st_section, get_synthetic_section
    from napari_dkan.slide import open_slide
    from napari_dkan.slide.tissue import find_tissue

    paths = [get_synthetic_section()]
    try:
        paths.append(fetch_her2st_section("C3"))
    except DkanError as error:
        print(error)
    print("\n| slide | open | overview | tissue | window of a spot, 1,120 to 280 px, median |")
    print("|---|---|---|---|---|")
    for sample in paths:
        start = time.perf_counter()
        slide = open_slide(sample.image)
        opened = time.perf_counter()
        np.asarray(slide.pyramid()[-1])
        seen = time.perf_counter()
        find_tissue(slide, slide.mpp or 0.688)
        found = time.perf_counter()
        windows = []
        for x, y in np.random.default_rng(0).uniform(1000, 4000, (40, 2)):
            begin = time.perf_counter()
            slide.read_patch(x, y, 1120, 280)
            windows.append(time.perf_counter() - begin)
        slide.close()
        print(
            f"| {sample.image.name} | {opened - start:.3f} s | {seen - opened:.2f} s "
            f"| {found - seen:.2f} s | {1000 * np.median(windows):.1f} ms |"
        )


if __name__ == "__main__":
    main()
