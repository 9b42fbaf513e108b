"""How busy `napari-dkan batch` keeps the cores over 40 slides, and how soon a finished one ends.

python benchmarks/batch.py [--slides 40]

The slides are pieces of a measured section, of different sizes, written to build/. The command
runs as a person types it; the CPU time of its processes is sampled from outside, and that of all
other programs, since these take from what it could have. Slides are in work from the start of the
first to the end of the last; what lies before is the start of Python and torch.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import numpy as np
from section import BUILD
from verdict import Figure, print_table

BUSY, RESUME_S = 0.9, 3.0
SAMPLE_S, ROW_S = 0.25, 5.0
SIDES = (1200, 2200)  # px of a slide, the smallest and the largest
BAR = 40  # characters for all cores


def make_slides(folder: Path, count: int) -> Path:
    """Pieces around measured spots of C3, or of the drawn section."""
    import tifffile

    from napari_dkan.errors import DkanError
    from napari_dkan.expression.array_geometry import mpp_from_spots
    from napari_dkan.expression.tables.spot_files import read_spots
    from napari_dkan.samples import fetch_her2st_section, get_synthetic_section
    from napari_dkan.slide import open_slide

    try:
        paths = fetch_her2st_section("C3")
    except DkanError as error:
        print(error)
        paths = get_synthetic_section()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random, spots = np.random.default_rng(0), read_spots(paths.spots)
    with open_slide(paths.image) as slide:
        mpp = slide.mpp or mpp_from_spots(spots)
        for number in range(count):
            side = int(random.integers(*SIDES))
            x, y = np.clip(random.choice(spots.xy) - side / 2, 0, None).astype(int)
            tifffile.imwrite(
                folder / f"S{number:02}.tif",
                slide.read_region(x, y, side, side),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
            )
    return folder


@dataclass
class Run:
    """Samples of a run: time, CPU seconds of its processes, and of everything on the machine."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)  # when a slide ended
    first: float = 0.0  # when the first slide began
    returncode: int = 0

    def use(self, begin: float, end: float) -> tuple[float, float]:
        """Cores that the run used, and that other programs used, on average between two times."""
        times, own, all_ = np.array(self.samples).T
        own_s = np.interp(end, times, own) - np.interp(begin, times, own)
        all_s = np.interp(end, times, all_) - np.interp(begin, times, all_)
        return own_s / (end - begin), max(all_s - own_s, 0) / (end - begin)

    @property
    def seconds(self) -> float:
        return self.samples[-1][0]


def measure(command: list[str]) -> Run:
    import psutil

    run, start = Run(), time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def follow() -> None:
        """Lines such as "3/40  S05-C3: 31 spots in 4 s"."""
        assert process.stderr is not None
        for line in process.stderr:
            count, _, rest = line.partition("  ")
            if "/" in count and " spots in " in rest:
                now = time.perf_counter() - start
                run.first = run.first or now - float(rest.split(" in ")[1].split()[0])
                run.finished.append(now)
            elif " spots, done before" not in rest:
                print(line, end="", file=sys.stderr)

    reader = Thread(target=follow)
    reader.start()
    seen: dict[int, float] = {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        for one in _tree(parent):
            try:
                seen[one.pid] = sum(one.cpu_times()[:2])
            except psutil.Error:
                continue
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0)
        busy -= getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        run.samples.append((time.perf_counter() - start, sum(seen.values()), busy))
        time.sleep(SAMPLE_S)
    reader.join()
    run.returncode = process.returncode
    return run


def _tree(parent) -> Iterator:
    import psutil

    try:
        yield from (parent, *parent.children(recursive=True))
    except psutil.Error:
        return


def print_use(run: Run, cores: int) -> None:
    print(f"\n|   s | slides | cores used of {cores} (# this run, - other programs) |")
    print("|---|---|---|")
    for begin in np.arange(0, run.seconds, ROW_S):
        own, others = run.use(begin, min(begin + ROW_S, run.seconds))
        bar = "#" * round(BAR * own / cores) + "-" * round(BAR * others / cores)
        done = sum(t <= begin + ROW_S for t in run.finished)
        print(f"| {begin:3.0f} | {done:6} | {own:4.2f} {bar[:BAR].ljust(BAR)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=40)
    args = parser.parse_args()
    slides, out = make_slides(BUILD / "batch-slides", args.slides), BUILD / "batch-results"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "napari_dkan", "batch", str(slides), "-o", str(out)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    run = measure(command)
    if run.returncode or not run.finished:
        raise SystemExit(f"The run ended with {run.returncode}.")
    print_use(run, cores)
    begin, end = run.first, run.finished[-1]
    own, others = run.use(begin, end)
    of_free = own / max(cores - others, 1e-9)
    tail = end - (run.finished[-2] if len(run.finished) > 1 else begin)
    print(
        f"\n{args.slides} slides in {end - begin:.0f} s after {begin:.1f} s of start; "
        f"{own:.2f} cores used, {others:.2f} by other programs; "
        f"one worker had nothing left for {tail:.1f} s."
    )
    again = [measure(command) for _ in range(3)]
    best = min(again, key=lambda run: run.seconds)
    print_table(
        [
            Figure(
                f"batch, {args.slides} slides: cores in use while slides are in work",
                f"{cores} CPU cores",
                f">= {BUSY:.0%} of what other programs leave",
                f"{of_free:.0%} ({own:.2f} of {cores} cores, others {others:.2f})",
                bool(of_free >= BUSY),
            ),
            Figure(
                f"batch, {args.slides} slides, when everything is there already",
                f"{cores} CPU cores, best of {len(again)}",
                f"<= {RESUME_S:g} s",
                f"{best.seconds:.1f} s, {best.samples[-1][1]:.1f} s of CPU",
                best.seconds <= RESUME_S,
            ),
        ]
    )


if __name__ == "__main__":
    main()
