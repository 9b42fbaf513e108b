"""Seconds a tile and peak memory of a dense map as the map grows, without a window.

The bundled checkpoint, all its genes, nothing kept from before; every size in a process of its
own, on the same slide: a section mirrored on and on into a pyramidal JPEG TIFF in build/. The
region is all the tissue there is. Peak memory is the whole process, torch and all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from section import peak_mb
from verdict import Figure, print_table

PX = 224  # level-0 px between dense tiles
FLAT = 1.2  # most over least
SIZES, SMALL = (1_024, 4_096, 16_384), (256, 1_024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="256 and 1,024 tiles")
    parser.add_argument("--tiles", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiles:
        print(json.dumps(measured(args.tiles, args.slide)))
        return
    from pyramid import pyramid_file

    sizes = SMALL if args.small else SIZES
    slide = pyramid_file((int(max(sizes) ** 0.5) + 6) * PX)
    print(f"\nslide: {slide.name}\n", flush=True)
    print("| tiles | seconds | ms a tile | peak memory, MB |\n|---|---|---|---|")
    found = []
    for tiles in sizes:
        command = [sys.executable, __file__, "--tiles", str(tiles), "--slide", str(slide)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds, peak, threads = json.loads(done.stdout.splitlines()[-1])
        found.append((1000 * seconds / tiles, peak))
        print(f"| {tiles:,} | {seconds:.1f} | {found[-1][0]:.2f} | {peak:,.0f} |", flush=True)
    each, peaks = zip(*found, strict=True)
    where = f"{threads} CPU threads, {', '.join(f'{n:,}' for n in sizes)} tiles"
    print_table(
        [
            _flat("time a tile as the map grows", where, each, "ms"),
            _flat("peak memory as the map grows", where, peaks, "MB"),
        ]
    )


def measured(tiles: int, path: Path) -> tuple[float, float, int]:
    """Seconds and peak memory (MB) of a map of so many tiles, and torch's threads."""
    import torch
    from shapely.geometry import box

    from napari_dkan.inference.predict import predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.samples import find_bundled_checkpoint
    from napari_dkan.slide import open_slide

    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    mpp, corner = checkpoint.patch.um / PX, 3 * PX
    with open_slide(path) as slide:

        def map_of(count: int) -> float:
            edge = corner + int(count**0.5) * PX
            region = box(corner, corner, edge, edge)
            predictor = Predictor(slide, checkpoint, mpp, region, "cpu")
            size = slide.width, slide.height
            target = target_from_region(region, checkpoint.patch.um, mpp, *size)
            assert len(target) == count
            start = time.perf_counter()
            predict(predictor, target)
            seconds = time.perf_counter() - start
            if count == tiles:
                print(predictor.stage_timer.format_report(), file=sys.stderr)
            return seconds

        map_of(4)
        seconds = map_of(tiles)
    peak = peak_mb()
    return seconds, peak, torch.get_num_threads()


def _flat(what: str, where: str, values: tuple[float, ...], unit: str) -> Figure:
    figure = ", ".join(f"{v:,.4g}" for v in values) + f" {unit}"
    spread = max(values) / min(values)
    return Figure(what, where, "flat within 20 %", f"{figure} ({spread:.2f}x)", spread <= FLAT)


if __name__ == "__main__":
    main()
