"""A session in a separate process: python session_script.py SLIDE CHECKPOINT OUT

Opens napari and the panels, predicts, saves and reopens. Prints one line of JSON with all attempts
to open a socket and a checksum of the prediction.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CALLS: list[str] = []


def record_connection(event: str, arguments: tuple[Any, ...]) -> None:
    """Record connections and name look-ups; a socket pair inside the process is neither."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        CALLS.append(f"{event} {arguments[1:]!r:.200}")


def main() -> None:
    sys.addaudithook(record_connection)
    slide, checkpoint, out = map(Path, sys.argv[1:])

    import napari
    import numpy as np
    import qtpy

    from napari_dkan.export.result_reader import load_result
    from napari_dkan.export.saved_result import SavedResult, SlideRecord, save_result
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.panels.finetune.finetune_widget import FinetuneWidget
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget
    from napari_dkan.viewer.session.user_history import (
        add_recent_checkpoint,
        load_pixel_sizes,
        save_pixel_size,
    )

    viewer = napari.Viewer(show=True)
    panel = PredictWidget(viewer)
    other_panels = [QualityWidget(viewer), FinetuneWidget(viewer)]
    for widget in (panel, *other_panels):
        viewer.window.add_dock_widget(widget, area="right")
    viewer.open(slide, plugin="napari-dkan")
    panel.model_box.load(checkpoint)
    session = panel.session
    demo.wait_until(
        lambda: session.checkpoint and session.checkpoint.path == checkpoint, "the model"
    )
    demo.wait_until(lambda: session.slide.tissue is not None, "the tissue")
    point = session.slide.tissue.representative_point()
    demo.wait_until(lambda: not panel.prefetcher.busy, "getting ready")
    demo.click_at(panel, point.x, point.y)
    demo.draw_region(panel, point.x, point.y, 400)
    demo.process_events(1.0)
    panel.target_box.start_prediction()
    demo.wait_until(
        lambda: not panel.prediction_jobs.busy and not panel.gene_decode_job.busy, "the map"
    )
    prediction = session.overlays[-1].prediction.select_predicted()
    opened = session.slide.slide
    record = SlideRecord.from_slide(opened, session.slide.mpp, "OME metadata")
    save_result(out, SavedResult(prediction, record, session.checkpoint.card), opened)
    again = load_result(out).prediction
    assert np.array_equal(again.values, prediction.values, equal_nan=True)
    add_recent_checkpoint(checkpoint)
    save_pixel_size("slide", 0.5)
    report = {
        "calls": CALLS,
        "qt": qtpy.API_NAME,
        "tiles": len(prediction.target),
        "sum": float(np.nansum(prediction.values)),
        "remembers": load_pixel_sizes().get("slide", (None,))[0],
        "message": session.message.text,
    }
    for widget in (panel, *other_panels):
        widget.shut_down()
    viewer.close()
    print("VISIT " + json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
