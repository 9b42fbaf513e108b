"""The gene lens dragged over warm tiles: frames a second that the canvas has really drawn.

A dense grid over the whole tissue is predicted before, as a session would have it. Then the
mouse is moved along a path over the section, through the window's own mouse events, and every
move waits for the frame that OpenGL has drawn with it. Beside the frames stand a frame in which
nothing has changed, which no lens can beat, and what a move costs the window before drawing.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ready_window import Frames, ready_window, settle
from verdict import Figure, print_table

TARGET = 10  # frames a second under software GL
MOVES, SMALL = 200, 60
RADIUS_UM = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL} moves")
    parser.add_argument("--shot", help="also a picture of the window, with the lens, to this file")
    options = parser.parse_args()
    viewer, panel, title = ready_window()
    from qtpy.QtCore import QPoint
    from qtpy.QtTest import QTest

    from napari_dkan.viewer import demo
    from napari_dkan.viewer.jobs.target_from_layers import target_from_layers
    from napari_dkan.viewer.session.viewer_settings import TargetMode

    session, lens, frames = panel.session, panel.lens, Frames(viewer)
    session.change_settings(target_mode=TargetMode.TISSUE, dense_grid=True)
    target = target_from_layers(session, None, None)
    assert target is not None
    panel.prediction_jobs.predict(target)
    settle(panel)
    for overlay in list(session.overlays):  # the tiles stay known; the lens draws alone
        viewer.layers.remove(overlay.layer)
    session.change_settings(target_mode=TargetMode.CLICK)
    lens.resize(RADIUS_UM)
    lens.set_active(True)
    demo.wait_until(lambda: not lens.busy, "the lens")
    settle(panel)

    native = viewer.window._qt_viewer.canvas.native
    moves = SMALL if options.small else MOVES
    handled: list[float] = []
    show = lens.move

    def timed(x: float, y: float) -> None:
        start = time.perf_counter()
        show(x, y)
        handled.append(1000 * (time.perf_counter() - start))

    lens.move = timed  # type: ignore[method-assign]
    redrawn = [1000 * frames.redraw() for _ in range(20)]
    angle = np.linspace(0, 4 * np.pi, moves)
    reach = 0.35 * min(native.width(), native.height()) * np.linspace(0.4, 1, moves)
    x = np.rint(native.width() / 2 + reach * np.cos(angle)).astype(int)
    y = np.rint(native.height() / 2 + reach * np.sin(angle)).astype(int)
    spent = []
    for i in range(1, moves):
        if (x[i], y[i]) == (x[i - 1], y[i - 1]):
            continue  # Qt tells of no move
        before, start = frames.count, time.perf_counter()
        QTest.mouseMove(native, QPoint(int(x[i]), int(y[i])))
        demo.wait_until(lambda before=before: frames.count > before, "a frame", 20, pause=0.0005)
        spent.append(1000 * (time.perf_counter() - start))
    rate = 1000 * len(spent) / sum(spent)
    print(f"\n{title}, {session.checkpoint.title if session.checkpoint else ''}")
    print(f"{len(target):,} warm tiles, a lens of {RADIUS_UM / 1000:.0f} mm\n")
    print("| lens | median, ms | p95, ms | most, ms |\n|---|---|---|---|")
    for name, times in (
        ("a frame without a change", redrawn),
        ("a move, before drawing", handled),
        ("a move to its frame", spent),
    ):
        median, p95 = np.percentile(times, (50, 95))
        print(f"| {name} | {median:.1f} | {p95:.1f} | {max(times):.1f} |")
    figure = f"{rate:.0f} frames/s (frame p95 {np.percentile(spent, 95):.0f} ms)"
    where = f"real window, {len(spent)} mouse moves"
    print_table(
        [Figure("gene lens over warm tiles", where, f">= {TARGET}", figure, bool(rate >= TARGET))]
    )
    if options.shot:
        viewer.screenshot(options.shot, canvas_only=False, flash=False)
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
