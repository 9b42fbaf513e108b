"""A whole visit in a process of its own, watched: python one_visit.py SLIDE CHECKPOINT OUT

Opens napari and the panels, predicts, saves and opens again. Prints one line of JSON: every attempt
to open a socket, and a checksum of what was predicted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CALLS: list[str] = []


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Connections and questions for names; a pair of sockets inside the process is none."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        CALLS.append(f"{event} {arguments[1:]!r:.200}")


def main() -> None:
    sys.addaudithook(listen)
    slide, checkpoint, out = map(Path, sys.argv[1:])

    import napari
    import numpy as np
    import qtpy

    from napari_dkan.export.reopen import reopen
    from napari_dkan.export.saved import Saved, SlideRecord, save
    from napari_dkan.viewer import demo
    from napari_dkan.viewer.finetune.widget import FineTuneWidget
    from napari_dkan.viewer.memory import remember_checkpoint, remember_mpp, remembered_mpps
    from napari_dkan.viewer.predict_widget import PredictWidget
    from napari_dkan.viewer.quality.widget import QualityWidget

    viewer = napari.Viewer(show=True)
    panel = PredictWidget(viewer)
    others = [QualityWidget(viewer), FineTuneWidget(viewer)]
    for widget in (panel, *others):
        viewer.window.add_dock_widget(widget, area="right")
    viewer.open(slide, plugin="napari-dkan")
    panel.model_box.load(checkpoint)
    session = panel.session
    demo.wait(lambda: session.checkpoint and session.checkpoint.path == checkpoint, "the model")
    demo.wait(lambda: session.slide.tissue is not None, "the tissue")
    place = session.slide.tissue.representative_point()
    demo.wait(lambda: not panel.ready.busy, "getting ready")
    demo.click(panel, place.x, place.y)
    demo.draw_region(panel, place.x, place.y, 400)
    demo.process_events(1.0)
    panel.where_box.start()
    demo.wait(lambda: not panel.maps.busy and not panel.genes.busy, "the map")
    prediction = session.overlays[-1].prediction.finished()
    opened = session.slide.slide
    record = SlideRecord.of(opened, session.slide.mpp, "OME metadata")
    save(out, Saved(prediction, record, session.checkpoint.card), opened)
    again = reopen(out).prediction
    assert np.array_equal(again.values, prediction.values, equal_nan=True)
    remember_checkpoint(checkpoint)
    remember_mpp("slide", 0.5)
    told = {
        "calls": CALLS,
        "qt": qtpy.API_NAME,
        "tiles": len(prediction.target),
        "sum": float(np.nansum(prediction.values)),
        "remembers": remembered_mpps().get("slide", (None,))[0],
        "message": session.message,
    }
    for widget in (panel, *others):
        widget.shut_down()
    viewer.close()
    print("VISIT " + json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
