"""A slide of 100,000 x 100,000 px: opening, memory, tissue, a whole-tissue job.

tools/with-screen.sh python benchmarks/huge_slide.py [--small]

The slide is sparse, see sparse_slide.py. Every part runs in a process of its own, with a real
napari window; memory is the peak of the resident size, compared with that of a process that
shows an empty viewer. The job is the bundled checkpoint's dense map of all tissue. Where it is
stopped after --tiles tiles, what the rest would add is extrapolated from the second half of what
was run, and that is too much: the caches that grow first are bounded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from section import peak_mb
from verdict import Figure, print_table

SIDE = 100_000
OPEN_S, VIEW_MB, JOB_MB = 2.0, 500, 1500
VIEW = (1000, 800)


def resident_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def empty_viewer():
    import napari

    from napari_dkan.viewer.demo import process_events

    viewer = napari.Viewer(title="benchmark", show=True)
    viewer.window.resize(*VIEW)
    process_events(0.5)
    draw(viewer)
    return viewer


def draw(viewer) -> np.ndarray:
    """What is on the canvas, drawn now."""
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()
    return viewer.screenshot(canvas_only=True, flash=False)


def part_empty(path: Path, tiles: int) -> dict:
    """Also what napari's first layer takes, of a few pixels from memory."""
    viewer = empty_viewer()
    found = {"peak": peak_mb()}
    start = time.perf_counter()
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), rgb=True)
    draw(viewer)
    found["seconds"] = time.perf_counter() - start
    viewer.close()
    return found


def part_view(path: Path, tiles: int) -> dict:
    """Open, first view; then 60 views at every zoom, all over the slide."""
    viewer = empty_viewer()
    start = time.perf_counter()
    viewer.open(path, plugin="napari-dkan")
    seen = draw(viewer)
    seconds = time.perf_counter() - start
    if seen[..., :3].std() < 5:
        raise SystemExit("The first view is blank.")
    found = {"seconds": seconds, "first": peak_mb()}
    random, layer = np.random.default_rng(0), viewer.layers[0]
    (y0, x0), (y1, x1) = layer.extent.world[:, -2:]
    fitted = viewer.scene.camera.zoom
    for step in range(60):
        x, y = random.uniform(0.3, 0.7, 2)
        viewer.scene.camera.center = (0, y0 + y * (y1 - y0), x0 + x * (x1 - x0))
        viewer.scene.camera.zoom = fitted * 2 ** (step % 9)
        draw(viewer)
        if step == 29:
            found["half"] = peak_mb()
    found["peak"] = peak_mb()
    viewer.close()
    return found


def part_tissue(path: Path, tiles: int) -> dict:
    """In the process of a viewer with the slide, so that memory is comparable."""
    from napari_dkan.slide.tissue import find_tissue
    from napari_dkan.viewer.session.slide_layer import slide_from_layer

    viewer = empty_viewer()
    viewer.open(path, plugin="napari-dkan")
    draw(viewer)
    slide = slide_from_layer(viewer.layers[0])[0]
    start = time.perf_counter()
    mask = find_tissue(slide, slide.mpp)
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, "share": float(mask.mask.mean()), "peak": peak_mb()}
    viewer.close()
    return found


def part_job(path: Path, tiles: int) -> dict:
    """Viewer, slide, tissue and the first tiles of the dense map of all tissue."""
    from napari_dkan.viewer.session.slide_layer import slide_from_layer
    from napari_dkan.viewer.widgets.gl_compat import import_torch

    viewer = empty_viewer()
    viewer.open(path, plugin="napari-dkan")
    draw(viewer)
    slide = slide_from_layer(viewer.layers[0])[0]
    import_torch()
    from napari_dkan.inference.predict import find_tissue_region
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.samples import find_bundled_checkpoint

    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    tissue = find_tissue_region(slide, slide.mpp)
    predictor = Predictor(slide, checkpoint, slide.mpp, tissue, device="cpu")
    size = slide.width, slide.height
    target = target_from_region(tissue, checkpoint.patch.um, slide.mpp, *size, tissue)
    start, marks = time.perf_counter(), []
    for update in predictor.stream(target):
        if update.stage == "spots":
            marks.append((update.done, resident_mb()))
            if tiles and update.done >= tiles:
                break
    seconds = time.perf_counter() - start
    done = marks[-1][0]
    later = np.array([mark for mark in marks if mark[0] >= done / 2])
    slope = float(np.polyfit(*later.T, 1)[0]) if len(later) > 2 else 0.0
    found = {"seconds": seconds, "done": done, "total": len(target), "peak": peak_mb()}
    viewer.close()
    return found | {"mb_per_tile": slope}


PARTS = {"empty": part_empty, "view": part_view, "tissue": part_tissue, "job": part_job}


def measured(part: str, path: Path, tiles: int) -> dict:
    command = [sys.executable, __file__, "--part", part, "--slide", path, "--tiles", str(tiles)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="200 tiles of the job")
    parser.add_argument("--tiles", type=int, default=0, help="of the job; all when 0")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    tiles = 200 if args.small else args.tiles
    if args.part:
        print(json.dumps(PARTS[args.part](args.slide, tiles)))
        return
    from sparse_slide import sparse_file

    path = sparse_file(SIDE)
    print(f"\n{path.name}: {SIDE:,} x {SIDE:,} px in a file of {path.stat().st_size / 1e6:.0f} MB")
    found = {part: measured(part, path, tiles) for part in PARTS}
    print_table(rows(found))


def rows(found: dict[str, dict]) -> list[Figure]:
    where = f"{os.cpu_count()} CPU cores, napari window"
    empty, view, tissue, job = (found[part] for part in PARTS)
    more = {part: found[part]["peak"] - empty["peak"] for part in PARTS}
    rest = max(job["mb_per_tile"], 0.0) * (job["total"] - job["done"])
    whole = more["job"] + rest
    rate = job["done"] / job["seconds"]
    job_figure = f"{more['job']:.0f} MB at {job['done']:,} tiles ({rate:.0f} tiles/s)"
    if rest:
        slope = f"{1000 * job['mb_per_tile']:.1f} kB a tile"
        job_figure += f"; {whole:.0f} MB at the end, extrapolated with {slope}"
    return [
        Figure(
            "100,000 px slide, open to first view",
            where,
            f"<= {OPEN_S:g} s",
            f"{view['seconds']:.2f} s ({empty['seconds']:.2f} s for a layer of 64 x 64 px)",
            view["seconds"] <= OPEN_S,
        ),
        Figure(
            "the same, memory over an empty viewer's",
            f"{where}, 60 views at all zooms",
            f"<= {VIEW_MB} MB",
            f"{more['view']:.0f} MB ({view['first'] - empty['peak']:.0f} at the first view, "
            f"{view['half'] - empty['peak']:.0f} after 30); empty viewer {empty['peak']:.0f} MB",
            more["view"] <= VIEW_MB,
        ),
        Figure(
            "finding its tissue",
            where,
            f"<= {VIEW_MB} MB more",
            f"{tissue['seconds']:.1f} s, {more['tissue']:.0f} MB, "
            f"{100 * tissue['share']:.0f} % of the slide",
            more["tissue"] <= VIEW_MB,
        ),
        Figure(
            "whole-tissue job, memory over an empty viewer's",
            f"{where}, bundled checkpoint, {job['done']:,} of {job['total']:,} tiles run",
            f"<= {JOB_MB:,} MB",
            job_figure,
            # Extrapolated too high, see above: that it would be missed must be seen in full.
            True if whole <= JOB_MB else None if rest else False,
            "only in part, so not judged" if rest and whole > JOB_MB else "",
        ),
    ]


if __name__ == "__main__":
    main()
