"""Tiles per second of the prediction engine without a window, training pitch and dense."""

from __future__ import annotations

import time

import torch


def main() -> None:
    from napari_dkan.errors import DkanError
    from napari_dkan.expression.array_geometry import mpp_from_spots
    from napari_dkan.expression.tables.spot_files import read_spots
    from napari_dkan.inference.predict import find_tissue_region, predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.samples import (
        fetch_her2st_section,
        find_bundled_checkpoint,
        get_synthetic_section,
    )
    from napari_dkan.slide import open_slide

    try:
        paths, name = fetch_her2st_section("C3"), "her2-breast"
    except DkanError:
        paths, name = get_synthetic_section(), "synthetic"
    checkpoint = load_checkpoint(find_bundled_checkpoint(name))
    with open_slide(paths.image) as slide:
        mpp = slide.mpp or mpp_from_spots(read_spots(paths.spots))
        tissue = find_tissue_region(slide, mpp)
        print(f"\n{paths.name}, {name}, {torch.get_num_threads()} CPU threads\n")
        print("| grid | tiles | seconds | tiles/s |\n|---|---|---|---|")
        for grid, pitch in (
            ("training pitch", checkpoint.spot_pitch_um),
            ("dense", checkpoint.patch.um),
        ):
            predictor = Predictor(slide, checkpoint, mpp, tissue)
            target = target_from_region(tissue, pitch, mpp, slide.width, slide.height, tissue)
            start = time.perf_counter()
            predict(predictor, target)
            seconds = time.perf_counter() - start
            rate = len(target) / seconds
            print(f"| {grid} | {len(target)} | {seconds:.1f} | {rate:.1f} |")


if __name__ == "__main__":
    main()
