"""How long the window is deaf while a map is predicted and nobody touches it.

A timer asks for a tick every 5 ms while Qt's own event loop runs; what lies between two ticks,
less the 5 ms, is a gap, in which a click would have waited. The map is dense: the left half of the
tissue from nothing, then the whole, which extends the map of the half. It is done again until
there are enough ticks.

The press of Predict stands apart, from the call to the next tick: napari builds a new map's layers
and their controls in it. Beside each time stands the processor time that the window's thread took
of it, which does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from ready_window import ready_window, settle
from section import empty_cache
from verdict import Figure, print_table

TICK_MS = 5
TARGET_MS = 50
SECONDS, SMALL = 30.0, 8.0  # of jobs, at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help=f"{SMALL:.0f} s of jobs")
    wanted = SMALL if parser.parse_args().small else SECONDS
    viewer, panel, title = ready_window()
    from napari_dkan.viewer.jobs.target_from_layers import target_from_layers
    from napari_dkan.viewer.session.viewer_settings import TargetMode

    session = panel.session
    session.change_settings(target_mode=TargetMode.TISSUE, dense_grid=True)
    settle(panel)
    target = target_from_layers(session, None, None)
    assert target is not None
    left = np.argsort(target.spots.xy[:, 0], kind="stable")[: len(target) // 2]
    parts = {"new": target.take(np.sort(left)), "extended": target}
    gaps: dict[str, list[Any]] = {name: [] for name in parts}
    presses: dict[str, list[Any]] = {name: [] for name in parts}
    spent, rounds = 0.0, 0
    while spent < wanted:
        start = time.perf_counter()
        for name, part in parts.items():
            found = job_gaps(panel, part)
            presses[name].append(found[0])
            gaps[name].append(found[1:])
            settle(panel, 0.2)
        spent, rounds = spent + time.perf_counter() - start, rounds + 1
        for overlay in list(session.overlays):
            viewer.layers.remove(overlay.layer)
        empty_cache("window")
        session.predictors._keyed_predictor = None  # the next job starts from nothing
        settle(panel)
    print(f"\n{title}: {rounds} times {len(target)} tiles in {spent:.1f} s")
    print("| map | ticks | p99, ms (processor) | longest | press |\n|---|---|---|---|---|")
    for name, found in gaps.items():
        every = np.concatenate(found)
        cells = [f"{a:.0f} ({b:.0f})" for a, b in (*_summary(every), np.median(presses[name], 0))]
        print(f"| {name} | {len(every)} | {' | '.join(cells)} |")
    (p99, busy), (most, most_busy) = _summary(np.concatenate([*gaps["new"], *gaps["extended"]]))
    press, press_busy = np.median(presses["new"], axis=0)
    figure = (
        f"{p99:.0f} ms, {busy:.0f} of the processor (longest {most:.0f}, {most_busy:.0f}; "
        f"press of Predict {press:.0f}, {press_busy:.0f})"
    )
    print_table(
        [
            Figure(
                "event-loop gap during a map, nobody touching the window",
                "real window, p99",
                f"<= {TARGET_MS} ms",
                figure,
                bool(p99 <= TARGET_MS),
            )
        ]
    )
    panel.shut_down()
    viewer.close()


def _summary(gaps: Any) -> tuple[Any, Any]:
    """Percentile 99 and the most of gaps (N, 2)."""
    return np.percentile(gaps, 99, axis=0), gaps.max(axis=0)


def job_gaps(panel: Any, target: Any) -> Any:
    """Milliseconds, wall and processor time (N, 2), from the press to a tick and between ticks."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    loop, timer = QEventLoop(), QTimer()
    ticks: list[tuple[float, float]] = []

    def tick() -> None:
        ticks.append((time.perf_counter(), time.thread_time()))
        if not panel.prediction_jobs.busy:
            loop.quit()

    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setInterval(TICK_MS)
    timer.timeout.connect(tick)
    ticks.append((time.perf_counter(), time.thread_time()))
    panel.prediction_jobs.predict(target)
    timer.start()
    loop.exec()
    timer.stop()
    return (1000 * np.diff(ticks, axis=0) - (TICK_MS, 0)).clip(0)


if __name__ == "__main__":
    main()
