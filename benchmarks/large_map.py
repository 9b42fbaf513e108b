"""Pan, zoom and change of gene on a map of 100,000 tiles beside one of 20,000, in one run.

Both maps lie over the whole slide with random values, smooth and in blocks; one is visible at a
time (a change of gene enlarges the hidden one, too, so its ratio is a little too near to one). A
step of the view and a change of gene end when OpenGL has drawn the frame. Figures are medians, and
the processor time of the window's thread beside them, since the drawing of software OpenGL takes
the other core. A screenshot of each map goes to build/benchmarks/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import numpy as np
from ready_window import Frames, random_map, ready_window, settle
from section import BUILD
from verdict import Figure, print_table

SIZES = {20_000: (160, 125), 100_000: (400, 250)}
STEPS, ROUNDS = 8, 2
TARGET = 1.2  # of the time at 20,000 tiles


def main() -> None:
    viewer, panel, title = ready_window()
    session, frames, camera = panel.session, Frames(viewer), viewer.scene.camera
    maps = {tiles: random_map(panel, *shape) for tiles, shape in SIZES.items()}
    symbols = iter(list(session.checkpoint.panel.symbols) * 4)
    centre, zoom = np.array(camera.center), camera.zoom

    def pan(step: int) -> None:
        camera.center = tuple(centre + np.array([0, 40 * (step % 3 - 1), 60 * (step % 2)]))

    def zoom_in(step: int) -> None:
        camera.zoom = zoom * 1.15 ** (step % 5)

    def change_gene(step: int) -> None:
        session.set_gene(next(symbols))

    def timed(act: Callable[[int], None], step: int) -> tuple[float, float]:
        """Wall and processor time, ms, from a step to its frame."""
        before, start, busy = frames.count, time.perf_counter(), time.thread_time()
        act(step)
        frames.wait(lambda: frames.count > before)
        spent = time.perf_counter() - start, time.thread_time() - busy
        settle(panel, 0.1)
        return 1000 * spent[0], 1000 * spent[1]

    acts = {"pan": pan, "zoom": zoom_in, "gene change": change_gene}
    found: dict[tuple[str, bool, int], list[tuple[float, float]]] = {}
    for round_, smooth, tiles in product(range(ROUNDS), (True, False), SIZES):
        session.change_settings(smooth_maps=smooth)
        for size, overlay in maps.items():
            overlay.layer.visible = size == tiles
        settle(panel)
        for name, act in acts.items():
            times = [timed(act, step) for step in range(STEPS)]
            found.setdefault((name, smooth, tiles), []).extend(times[1:])
        if round_ == 0:
            shot = BUILD / f"map-{tiles}-{'smooth' if smooth else 'blocks'}.png"
            viewer.screenshot(str(shot), canvas_only=False, flash=False)
    print(f"\n{title}\n\n| map | what | 20,000 tiles, ms (processor) | 100,000 | ratio |")
    print("|---|---|---|---|---|")
    figures = []
    for smooth, name in product((True, False), acts):
        small, large = (np.median(found[name, smooth, tiles], axis=0) for tiles in SIZES)
        drawn, ratio = "smooth" if smooth else "blocks", large[0] / small[0]
        cells = [f"{wall:.0f} ({busy:.0f})" for wall, busy in (small, large)]
        print(f"| {drawn} | {name} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
        figure = f"{large[0]:.0f} against {small[0]:.0f} ms, {ratio:.2f}x"
        what, where = f"100,000 tiles against 20,000, {drawn}: {name}", "real window, median"
        figures.append(Figure(what, where, f"<= {TARGET}x", figure, bool(ratio <= TARGET)))
    print_table(figures)
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
