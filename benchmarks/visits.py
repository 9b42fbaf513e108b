"""The second visit to a slide against the first: the same region, each visit in a new process.

What the first visit keeps lies in a folder of its own in build/, empty before. The clock starts
when slide and checkpoint are open and the network has run once on other pixels, and stops at the
first gene's map and at the map of all genes. A visit's start, which is the same for both, is
printed beside it. The map is dense, over the whole tissue of a section, and over a slide of 4,096
tiles made from it (--small: 1,024); of three second visits the middle one counts. What a second
visit costs is mostly the start of the store, so a small slide gains less by it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from verdict import Figure, print_table

WANTED = 10
PX = 224  # level-0 px between dense tiles of the larger slide
SECOND = 3  # visits


LARGE, SMALL = 64, 32  # tiles along a side of the larger slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a smaller large slide")
    parser.add_argument("--visit", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.visit:
        print(json.dumps(visit(args.visit)))
        return
    from pyramid import pyramid_file
    from section import best_section

    side = SMALL if args.small else LARGE
    slides = (best_section().image, pyramid_file((side + 6) * PX))
    print_table([figure for slide in slides for figure in visited(slide)])


def visited(slide: Path) -> list[Figure]:
    """The ratios of one slide."""
    from section import empty_cache

    empty_cache("visits")
    command = [sys.executable, __file__, "--visit", str(slide)]
    visits = []
    print(f"\n{slide.name}\n\n| visit | opening, s | first gene's map, s | all genes, s |")
    print("|---|---|---|---|")
    for i in range(1 + SECOND):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        tiles, threads, opened, first, panel = json.loads(done.stdout.splitlines()[-1])
        visits.append((first, panel))
        name = "first" if i == 0 else "second"
        print(f"| {name} | {opened:.2f} | {first:.3f} | {panel:.3f} |", flush=True)
    first, *later = visits
    again = sorted(later)[SECOND // 2]
    where = f"{threads} CPU threads, {tiles} tiles"
    return [
        _ratio("second visit, the first gene's map", where, first[0], again[0]),
        _ratio("second visit, all genes", where, first[1], again[1]),
    ]


def visit(path: Path) -> tuple[int, int, float, float, float]:
    """Tiles, torch's threads, seconds to open, to the first gene's map, to all genes."""
    start = time.perf_counter()
    import numpy as np
    import torch
    from section import best_section
    from shapely.geometry import box

    from napari_dkan.inference.predict import find_tissue_region, predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.slide import open_slide

    section = best_section()
    checkpoint = load_checkpoint(section.checkpoint)
    with open_slide(path) as slide:
        size = slide.width, slide.height
        if path == section.image:
            mpp = section.mpp
            tissue = find_tissue_region(slide, mpp)
        else:  # mirrored tissue from edge to edge
            mpp = checkpoint.patch.um / PX
            tissue = box(3 * PX, 3 * PX, slide.width - 3 * PX, slide.height - 3 * PX)
        corner = box(0, 0, 2 * checkpoint.patch.um / mpp, 2 * checkpoint.patch.um / mpp)
        other = Predictor(slide, checkpoint, mpp, corner, "cpu")
        predict(other, target_from_region(corner, checkpoint.patch.um, mpp, *size))
        target = target_from_region(tissue, checkpoint.patch.um, mpp, *size, tissue)
        opened = time.perf_counter() - start

        start = time.perf_counter()
        predictor = Predictor(slide, checkpoint, mpp, tissue, "cpu", use_disk_cache=True)
        tokens = np.zeros((len(target), predictor.prediction_context.token_dim), np.float32)
        for update in predictor.stream(target, genes=[0]):
            if update.tokens is not None:
                tokens[update.rows] = update.tokens
        first = time.perf_counter() - start
        predictor.decode(tokens)
        panel = time.perf_counter() - start
    print(predictor.stage_timer.format_report(), file=sys.stderr)
    return len(target), torch.get_num_threads(), opened, first, panel


def _ratio(what: str, where: str, first: float, again: float) -> Figure:
    ratio = first / again
    figure = f"{ratio:.1f}x ({1000 * first:.0f} ms, then {1000 * again:.0f} ms)"
    return Figure(what, where, f">= {WANTED}x faster", figure, ratio >= WANTED)


if __name__ == "__main__":
    main()
