"""What a huge JPEG or PNG costs: seconds and memory to open it, to see it, to read its level 0.

    python benchmarks/flat_images.py --side 16000

Each figure is of a process of its own; memory is the peak above that of the imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np

from napari_dkan.slide import open_slide


def write(path: Path, side: int) -> None:
    """A picture of repeated noise on stripes."""
    rng = np.random.default_rng(0)
    patch = rng.integers(0, 14, (500, 500, 3), dtype=np.uint8)
    patch += (np.sin(np.arange(500) / 20) * 100 + 120).astype(np.uint8)[:, None, None]
    whole = np.tile(patch, (-(-side // 500), -(-side // 500), 1))[:side, :side].copy()
    if path.suffix == ".jpg":
        path.write_bytes(imagecodecs.jpeg8_encode(whole, level=80))
    else:
        path.write_bytes(imagecodecs.png_encode(whole, level=1))


def peak() -> float:
    """GiB that this process ever held."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def read(path: Path) -> None:
    before, start = peak(), time.perf_counter()

    def say(what: str) -> None:
        print(f"{what:10}{time.perf_counter() - start:7.1f} s{peak() - before:8.2f} GiB")

    with open_slide(path) as slide:
        print(f"{path.suffix[1:]} of {slide.width:,} x {slide.height:,} px")
        say("opened")
        coarsest = slide.levels[-1]
        slide.read_region(0, 0, coarsest.width, coarsest.height, len(slide.levels) - 1)
        say("overview")
        slide.read_patch(slide.width / 2, slide.height / 2, 224, 224)
        say("level 0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=16_000)
    # A process begins with its parent's peak: so the parent, which writes, ends before this reads.
    parser.add_argument("--do", choices=["write", "read"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do == "write":
        write(options.path, options.side)
    elif options.do == "read":
        read(options.path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("jpg", "png"):
                for step in ("write", "read"):
                    call = [sys.executable, __file__, "--side", str(options.side), "--do", step]
                    subprocess.run([*call, "--path", f"{folder}/flat.{kind}"], check=True)
