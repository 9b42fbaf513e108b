"""What a report of a job's progress costs the window: a plain progress bar and the plugin's.

Both bars lie in the dock beside the canvas; a job reports 50 times a second to one of them, in
turns, while Qt's own event loop runs. Counted is the processor time of the window's thread, less
that of the same loop without reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from ready_window import ready_window
from verdict import Figure, print_table

REPORTS, ROUNDS, PAUSE_S = 50, 4, 0.02
TARGET_MS = 5


def main() -> None:
    viewer, panel, title = ready_window()
    from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

    from napari_dkan.viewer import demo
    from napari_dkan.viewer.widgets.paced_progress_bar import PacedProgressBar

    plain, paced = QProgressBar(), PacedProgressBar()
    plain.setRange(0, REPORTS)
    dock = QWidget()
    column = QVBoxLayout(dock)
    column.addWidget(plain)
    column.addWidget(paced)
    viewer.window.add_dock_widget(dock, name="bars", area="right")
    demo.process_events(1)

    def spent(report: Callable[[int], object]) -> float:
        """Milliseconds of this thread's processor time per report."""
        start = time.thread_time()
        for done in range(REPORTS):
            report(done)
            demo.process_events(PAUSE_S)
        return 1000 * (time.thread_time() - start) / REPORTS

    reports: dict[str, Callable[[int], object]] = {
        "nothing": lambda done: None,
        "plain": plain.setValue,
        "paced": lambda done: paced.show_progress(done, REPORTS),
    }
    found: dict[str, list[float]] = {name: [] for name in reports}
    for _ in range(ROUNDS):
        for name, report in reports.items():
            found[name].append(spent(report))
    idle, before, after = (float(np.median(found[name])) for name in reports)
    figure = f"{after - idle:.1f} ms (a plain bar {before - idle:.1f})"
    where = "real window, processor time a report"
    met = after - idle <= TARGET_MS
    print(f"\n{title}\n")
    print_table([Figure("a report of progress", where, f"<= {TARGET_MS} ms", figure, met)])
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
