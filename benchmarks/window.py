"""Latency in a real window: click to spot, region, gene change, on the demo's section.

Run it with ``make bench``. Prints a Markdown table; figures worth keeping go to RESULTS.md.
"""

from __future__ import annotations

import time

import numpy as np
from ready_window import places_on_tissue, settle
from section import empty_cache

CLICKS = 20


def main() -> None:
    empty_cache("window")  # what an earlier run has kept would be found again
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.session.viewer_settings import TargetMode

    start = time.perf_counter()
    viewer, panel, title = demo.open_section()
    demo.process_events()
    rows = [("window, slide and checkpoint ready", f"{time.perf_counter() - start:.1f} s")]
    session = panel.session
    middle = demo.fit_view_to_tissue(viewer, panel).centroid

    places = places_on_tissue(panel, CLICKS + 1)
    rows.append(
        ("first click to spot (while getting ready)", f"{demo.click_at(panel, *places[0]):.2f} s")
    )
    settle(panel)  # the check of the slide's stain encodes tiles of its own for a while
    clicks = []
    for x, y in places[1:]:
        clicks.append(demo.click_at(panel, x, y))
        demo.process_events(0.3)  # a person looks before clicking again
    rows.append(("click to spot, median", f"{np.median(clicks) * 1000:.0f} ms"))
    rows.append(("click to spot, p95", f"{np.percentile(clicks, 95) * 1000:.0f} ms"))

    start = time.perf_counter()
    demo.draw_region(panel, middle.x, middle.y, 2500)
    demo.process_events(0.2)
    panel.target_box.start_prediction()
    demo.wait_until(
        lambda: session.overlays[-1].prediction.target.grid is not None, "the first tiles"
    )
    demo.wait_until(lambda: session.overlays[-1].prediction.predicted_mask.any(), "the first tiles")
    rows.append(("region, first tiles on the canvas", f"{time.perf_counter() - start:.2f} s"))
    demo.wait_until(lambda: not panel.prediction_jobs.busy, "the region")
    seconds = time.perf_counter() - start
    tiles = int(session.overlays[-1].prediction.predicted_mask.sum())
    rows.append(("region, tiles", f"{tiles} in {seconds:.1f} s, {tiles / seconds:.0f} tiles/s"))

    changes = []
    for _ in range(20):
        start = time.perf_counter()
        session.step_gene(1)
        viewer.screenshot(canvas_only=True, flash=False, size=(600, 800))
        changes.append(time.perf_counter() - start)
    shots = []
    for _ in range(20):
        start = time.perf_counter()
        viewer.screenshot(canvas_only=True, flash=False, size=(600, 800))
        shots.append(time.perf_counter() - start)
    drawn = np.median(changes) - np.median(shots)
    rows.append(("gene change, over a redraw without one", f"{drawn * 1000:.0f} ms"))
    session.change_settings(target_mode=TargetMode.CLICK)

    print(f"\n{title}, {session.checkpoint.title}, {panel.advanced['device'].current_choice}\n")
    print("| what | figure |\n|---|---|")
    for what, figure in rows:
        print(f"| {what} | {figure} |")
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
