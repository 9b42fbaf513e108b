"""Seconds from a prompt to a window: napari alone, and with the Predict panel and its checkpoint.

python benchmarks/startup.py [--small] [--without-byte-code]

Every run is a process of its own, napari alone and with the panel by turns, so that both meet the
same machine. The import of the package and its manifest, which every napari pays for, is measured
beside them. A second run of a process finds the files in the system's cache; the first run is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from verdict import Figure, print_table

IMPORT_RUNS, WINDOW_RUNS, SMALL_RUNS = 7, 5, 3
IMPORT_BUDGET_S = 0.3
USABLE_S, READY_S = 2.0, 6.0
IMPORT_CODE = """
from time import perf_counter as now
start = now(); import napari_dkan
imported = now(); from npe2 import PluginManifest
ready = now(); PluginManifest.from_distribution("napari-dkan")
print(imported - start, ready - imported, now() - ready)
"""
WINDOW_CODE = """
import json, os, sys, time
with_panel = sys.argv[1] == "panel"
times = {"interpreter": time.time()}
import napari
times["import napari"] = time.time()
from qtpy.QtCore import QTimer
viewer = napari.Viewer()
canvas = viewer.window._qt_viewer.canvas._scene_canvas

def finish():
    times["processor"] = sum(os.times()[:2])
    print(json.dumps(times), flush=True)
    os._exit(0)

def painted(event):
    canvas.events.draw.disconnect(painted)
    QTimer.singleShot(0, at_rest)

def at_rest():
    times["window"] = time.time()
    if not with_panel:
        finish()
    from napari_dkan.viewer.session.shortcut_actions import PREDICT_PANEL, open_panel_dock
    open_panel_dock(viewer, PREDICT_PANEL)
    times["panel built"] = time.time()
    QTimer.singleShot(0, usable)  # after its first paint

def usable():
    times["panel usable"] = time.time()
    from napari_dkan.viewer.session.viewer_session import get_session
    session = get_session(viewer)
    def ready():
        if session.checkpoint is not None:
            times["checkpoint ready"] = time.time()
            finish()
    timer = QTimer(canvas.native)
    timer.timeout.connect(ready)
    timer.start(5)

canvas.events.draw.connect(painted)
QTimer.singleShot(120_000, lambda: os._exit(1))
napari.run()
"""


def measure_import() -> tuple[float, float, float]:
    """Seconds of the package import, of npe2's own import, and of reading the manifest."""
    command = [sys.executable, "-c", IMPORT_CODE]
    runs = [
        tuple(map(float, subprocess.check_output(command, text=True).split()))
        for _ in range(IMPORT_RUNS)
    ]
    package, npe2, manifest = (min(column) for column in zip(*runs, strict=True))
    return package, npe2, manifest


def open_window(kind: str, byte_code: bool) -> dict[str, float]:
    """Seconds since the prompt at which each step of a window is reached."""
    environment = os.environ.copy()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        if not byte_code:
            environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": folder}
        environment["NAPARI_DKAN_CACHE"] = folder
        command = [sys.executable, "-c", WINDOW_CODE, kind]
        start = time.time()
        output = subprocess.check_output(command, text=True, env=environment)
    times = json.loads(output.splitlines()[-1])
    return {step: value if step == "processor" else value - start for step, value in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL_RUNS} windows of each kind")
    parser.add_argument("--without-byte-code", action="store_true", help="as after installation")
    options = parser.parse_args()
    byte_code, runs = not options.without_byte_code, SMALL_RUNS if options.small else WINDOW_RUNS

    package, npe2, manifest = measure_import()
    windows: dict[str, list[dict[str, float]]] = {"alone": [], "panel": []}
    for run in range(runs + 1):
        for kind, found in windows.items():
            times = open_window(kind, byte_code)
            if run or not byte_code:
                found.append(times)
    middle = {
        kind: {step: median(times[step] for times in found) for step in found[0]}
        for kind, found in windows.items()
    }
    alone, panel = middle["alone"], middle["panel"]
    print(f"npe2 itself, in napari: {npe2:.3f} s\n")
    print("| seconds since the prompt | napari alone | with the panel |\n|---|---|---|")
    for step in panel:
        print(f"| {step} | {f'{alone[step]:.2f}' if step in alone else ''} | {panel[step]:.2f} |")
    code = "byte code" if byte_code else "no byte code"
    where = f"real window, median of {runs}, {code}"
    usable, ready = panel["panel usable"], panel["checkpoint ready"]
    beside = f"napari alone {alone['window']:.1f} s"
    print_table(
        [
            Figure(
                "package and manifest, at every start of napari",
                f"best of {IMPORT_RUNS}",
                f"<= {IMPORT_BUDGET_S} s",
                f"{package + manifest:.3f} s",
                package + manifest <= IMPORT_BUDGET_S,
            ),
            Figure(
                "prompt to a usable panel",
                where,
                f"<= {USABLE_S:.0f} s",
                f"{usable:.1f} s ({beside})",
                usable <= USABLE_S,
            ),
            Figure(
                "prompt to a checkpoint that is ready",
                where,
                f"<= {READY_S:.0f} s",
                f"{ready:.1f} s ({beside})",
                ready <= READY_S,
            ),
        ]
    )


if __name__ == "__main__":
    main()
