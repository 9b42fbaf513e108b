"""Seconds that the plugin adds to napari's start: import and manifest, best of some runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys

RUNS = 7
BUDGET_S = 0.3
CODE = """
from time import perf_counter as now
start = now(); import napari_dkan
imported = now(); from npe2 import PluginManifest
ready = now(); PluginManifest.from_distribution("napari-dkan")
print(imported - start, ready - imported, now() - ready)
"""


def measure() -> tuple[float, float, float]:
    """Seconds of the package import, of npe2's own import, and of reading the manifest."""
    runs = [
        tuple(map(float, subprocess.check_output([sys.executable, "-c", CODE], text=True).split()))
        for _ in range(RUNS)
    ]
    package, npe2, manifest = (min(column) for column in zip(*runs, strict=True))
    return package, npe2, manifest


def main() -> None:
    package, npe2, manifest = measure()
    print(f"import napari_dkan      {package:.4f} s")
    print(f"read the manifest       {manifest:.4f} s")
    print(f"together                {package + manifest:.4f} s (budget {BUDGET_S} s)")
    print(f"npe2 itself, in napari  {npe2:.4f} s")


if __name__ == "__main__":
    main()
