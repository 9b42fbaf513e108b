"""A dense map of a resection: 60,000 x 60,000 px of tissue from edge to edge, all genes.

The slide is made of the four sections of the study, again and again (`repeated_file`). The whole of
it is the target, and every tile of it is one of the job's, but the job ends after --tiles of them,
or after --seconds: the slide is never smaller. What is kept on disk is kept, in build/, from empty.

Printed: the rate and the memory as the map grows, where the results are allocated before, so that
only what the engine holds can grow; the CPU time over that of the cores given; and a profile by
stage. Stages of the computing thread are shares of the wall time; reading and resampling run
in threads of their own, and what they hold up is *wait*.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise

import numpy as np
from verdict import Figure, print_table

SIDE = 60_000
PX = 224  # level-0 px between dense tiles
TILES, SMALL = 16_384, 1_024
SECONDS = 240.0
PARTS = 8
FLAT, BUSY = 1.2, 0.9
READING = ("read", "resize")  # stages of the reading threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL:,} tiles")
    parser.add_argument("--tiles", type=int, default=TILES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    tiles = SMALL if args.small else args.tiles
    from pyramid import repeated_file
    from section import empty_cache

    path = repeated_file(SIDE)
    print(f"\n{path.name}: {SIDE:,} x {SIDE:,} px in a file of {path.stat().st_size / 1e6:.0f} MB")
    empty_cache("resection")
    measure(path, tiles, args.seconds)


def measure(path, wanted: int, limit: float) -> None:
    import psutil
    import torch
    from shapely.geometry import box

    from napari_dkan.inference.predict import create_empty_prediction
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.samples import find_bundled_checkpoint
    from napari_dkan.slide import open_slide

    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    mpp, process = checkpoint.patch.um / PX, psutil.Process()
    cores = len(os.sched_getaffinity(0))
    with open_slide(path) as slide:
        size = slide.width, slide.height
        tissue = box(0, 0, *size)
        target = target_from_region(tissue, checkpoint.patch.um, mpp, *size)
        warm_up = Predictor(slide, checkpoint, mpp, box(0, 0, 4 * PX, 4 * PX), "cpu")
        for _ in warm_up.stream(
            target_from_region(warm_up.tissue, checkpoint.patch.um, mpp, *size)
        ):
            pass
        predictor = Predictor(slide, checkpoint, mpp, tissue, "cpu", use_disk_cache=True)
        prediction, _ = create_empty_prediction(predictor, target, "given")
        wanted = min(wanted, len(target))
        marks = [(0, 0.0, 0.0, process.memory_info().rss / 1e6)]
        start, cpu = time.perf_counter(), time.process_time()
        for update in predictor.stream(target):
            prediction.apply_update(update)
            done, seconds = update.done, time.perf_counter() - start
            if update.stage == "context":
                done = marks[-1][0]
            ended = done >= wanted or seconds > limit
            if ended or done >= len(marks) * wanted / PARTS:
                used = time.process_time() - cpu
                marks.append((done, seconds, used, process.memory_info().rss / 1e6))
            if ended:
                break
        threads = torch.get_num_threads()
    assert np.isfinite(prediction.values).all(axis=1).sum() >= done
    report(marks, predictor.stage_timer.get_seconds(), len(target), cores, threads)


def report(marks, stages: dict[str, float], total: int, cores: int, threads: int) -> None:
    done, seconds, used, _ = marks[-1]
    print(f"{done:,} of {total:,} tiles; {threads} threads on {cores} cores\n")
    print("| tiles | tiles/s | CPU use | CPU, ms a tile | resident, MB |\n|---|---|---|---|---|")
    rates = []
    for (n0, s0, c0, _), (n1, s1, c1, resident) in pairwise(marks):
        rates.append((n1 - n0) / (s1 - s0))
        each = 1000 * (c1 - c0) / max(n1 - n0, 1)
        use = (c1 - c0) / (s1 - s0) / cores
        print(f"| {n1:,} | {rates[-1]:.0f} | {use:.0%} | {each:.2f} | {resident:,.0f} |")
    print("\n| stage | ms a tile | of the wall time |\n|---|---|---|")
    computing = {name: value for name, value in stages.items() if name not in READING}
    computing["rest"] = seconds - sum(computing.values())
    for name, value in sorted(computing.items(), key=lambda item: -item[1]):
        print(f"| {name} | {1000 * value / done:.3f} | {value / seconds:.1%} |")
    for name in READING:
        print(f"| {name}, in threads | {1000 * stages.get(name, 0.0) / done:.3f} | |")
    where = f"{cores} cores, {done:,} of {total:,} tiles"
    use = used / seconds / cores
    # The first part encodes the first row of windows, which the others share.
    spread = max(rates[1:]) / min(rates[1:])
    resident = [mark[3] for mark in marks[1:]]
    waited = stages.get("wait", 0.0) / seconds
    print_table(
        [
            Figure(
                "dense map of 60,000 x 60,000 px, tiles/s",
                where,
                "flat within 20 %",
                f"{done / seconds:.0f} tiles/s (parts from {min(rates):.0f} to {max(rates):.0f})",
                spread <= FLAT,
            ),
            Figure(
                "its memory as it grows",
                where,
                "flat within 20 %",
                f"{resident[0]:,.0f} to {max(resident):,.0f} MB",
                max(resident) / resident[0] <= FLAT,
            ),
            Figure("its CPU use", where, f">= {BUSY:.0%}", f"{use:.0%}", use >= BUSY),
            Figure("waiting for pixels", where, "<= 5 %", f"{waited:.1%}", waited <= 0.05),
        ]
    )


if __name__ == "__main__":
    main()
