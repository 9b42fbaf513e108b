"""Everything that is measured on a GPU, one after another, in under eight minutes.

For a machine that is lent for minutes. It needs torch, timm, tifffile, lightning, scikit-image,
safetensors, h5py and psutil, and besides shapely, platformdirs, pooch and imagecodecs; no napari,
anndata or zarr. ``--rehearse`` shows on a CPU, with small numbers, that all of it runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from section import BUILD
from verdict import FILE, print_table, read_figures

HERE = Path(__file__).parent
SECONDS = 470  # for all; what is left when a part begins is its limit
# The most important first: time may run out.
PARTS = (
    ("gpu.py", ["--side", "96", "--clicks", "100"], ["--rehearse", "--side", "8", "--clicks", "3"]),
    ("training_step.py", ["--batch", "128"], ["--small", "--repeats", "1", "--batch", "8"]),
    ("training_step.py", ["--batch", "128", "--mixed"], []),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="small, on the CPU")
    rehearse = parser.parse_args().rehearse
    BUILD.mkdir(parents=True, exist_ok=True)
    verdicts, begun = BUILD / "gpu-verdicts.jsonl", time.monotonic()
    verdicts.unlink(missing_ok=True)
    told = {**os.environ, FILE: str(verdicts), "NAPARI_DKAN_CACHE": str(BUILD / "cache")}
    failed = []
    for name, options, light in PARTS:
        chosen = light if rehearse else options
        if not chosen:
            continue
        left = SECONDS - (time.monotonic() - begun)
        print(f"\n## {name} {' '.join(chosen)} ({left:.0f} s left)", flush=True)
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / name), *chosen], env=told, timeout=max(left, 1)
            )
            ended_well = done.returncode == 0
        except subprocess.TimeoutExpired:
            ended_well = False
        if not ended_well:
            failed.append(name)
    print(f"\n## All verdicts, after {time.monotonic() - begun:.0f} s")
    print_table(read_figures(verdicts))
    if failed:
        print(f"Ended with an error or ran out of time: {', '.join(failed)}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
