"""From a click to the bars of the spot, in the real window with the bundled checkpoint.

The window is at rest: slide and checkpoint are open and the warm-up has computed what lies around
the view, as it does a moment after opening.

cold : a place that was never asked for. None of the 25 patches around it has been read or encoded
    (their positions are its own, whatever lies near). The slide's surroundings are known.
warm : the same places again in another order; their patches are known.

The clock starts where the mouse callback hands over the click and stops when the bars of that
spot have been painted. A person looks for a moment between two clicks.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from ready_window import places_on_tissue, ready_window, settle
from verdict import Figure, print_table

CLICKS, SMALL = 100, 25
LOOKING_S = 0.2
COLD_MS, WARM_MS = 300, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL} clicks each")
    count = SMALL if parser.parse_args().small else CLICKS
    viewer, panel, title = ready_window()
    from napari_dkan.viewer import demo

    middle, *places = places_on_tissue(panel, count + 1)
    clicked(panel, *middle)  # the first one pays for making its layer
    settle(panel)
    order = np.random.default_rng(1).permutation(count)
    rounds = {"cold": places, "warm": [places[i] for i in order]}
    print(f"\n{title}, {panel.session.checkpoint.title}\n")
    figures, rows, stages = [], [], panel.session.predictors.current.stage_timer
    for (name, round_), target in zip(rounds.items(), (COLD_MS, WARM_MS), strict=True):
        spent = []
        stages.reset()
        for x, y in round_:
            spent.append(1000 * clicked(panel, x, y))
            demo.process_events(LOOKING_S)
        median, p95 = np.percentile(spent, (50, 95))
        rows.append(f"| {name} | {median:.0f} | {p95:.0f} | {max(spent):.0f} |")
        print(f"{name}\n{stages.format_report()}\n", flush=True)
        where = f"real window, p95 of {count} clicks"
        figure = f"{p95:.0f} ms (median {median:.0f})"
        figures.append(
            Figure(f"click to bars, {name}", where, f"<= {target} ms", figure, bool(p95 <= target))
        )
    print("| clicks | median, ms | p95, ms | most, ms |\n|---|---|---|---|", *rows, sep="\n")
    print_table(figures)
    panel.shut_down()
    viewer.close()


def clicked(panel: Any, x: float, y: float) -> float:
    """Seconds from a click at (x, y), level-0 px, to the painted bars, in Qt's own event loop."""
    from qtpy.QtCore import QEvent, QEventLoop, QObject, QTimer

    session, bars = panel.session, panel.spot_box.gene_bars
    before, loop, painted = session.spot, QEventLoop(), []

    class Watch(QObject):
        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.Paint and session.spot is not before and not painted:
                bars.removeEventFilter(self)
                bars.paintEvent(event)
                painted.append(time.perf_counter())
                QTimer.singleShot(0, loop.quit)
                return True
            return False

    watch = Watch()
    bars.installEventFilter(watch)
    QTimer.singleShot(60_000, loop.quit)
    start = time.perf_counter()
    QTimer.singleShot(0, lambda: panel.click_predictor.predict_at(x, y))
    loop.exec()
    return painted[0] - start


if __name__ == "__main__":
    main()
