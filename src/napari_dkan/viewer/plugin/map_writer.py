"""npe2 writer of predicted maps (File > Save Selected Layers...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import OutputError

if TYPE_CHECKING:
    from ..session.prediction_overlay import PredictionOverlay
    from ..session.viewer_session import ViewerSession


LayerData = tuple[Any, dict[str, Any], str]


def write_layers(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save the predicted map among the layers with the regions of their Shapes layers.

    The window is redrawn during the save but accepts no input.

    Parameters
    ----------
    path : str
        The suffix determines the format.
    layers : sequence of LayerData

    Raises
    ------
    OutputError
        Unless exactly one layer is a predicted map.
    """
    from napari.layers import Shapes

    from ..panels.results.results_controller import get_results_controller
    from ..panels.results.save_result import save_snapshot, snapshot_result

    maps = [match for meta in layers if (match := _find_overlay(meta[1])) is not None]
    if len(maps) != 1:
        count = "None" if not maps else "More than one"
        raise OutputError(
            f"{count} of these layers is a map predicted in this window; select one (layers are "
            "called GENE predicted) and save again."
        )
    session, overlay = maps[0]
    drawn = {id(meta["metadata"]) for _, meta, kind in layers if kind == "shapes"}
    shapes = [s for s in session.viewer.layers if isinstance(s, Shapes) and id(s.metadata) in drawn]
    results = get_results_controller(session)
    regions = shapes[-1] if shapes else results.drawn_regions()
    _run_blocking(
        save_snapshot(
            Path(path), snapshot_result(session, overlay, regions, results.find_source(overlay))
        )
    )
    return [path]


def _find_overlay(meta: dict[str, Any]) -> tuple[ViewerSession, PredictionOverlay] | None:
    """The prediction of a layer, of which napari passes the attributes only."""
    from ..session.viewer_session import list_sessions

    record = meta.get("metadata", {}).get("napari-dkan")
    for session in list_sessions():
        for overlay in session.overlays:
            if record is not None and overlay.layer.metadata.get("napari-dkan") is record:
                return session, overlay
    return None


def _run_blocking(job: Iterator[Any]) -> None:
    """Run a job in a thread to its end; napari expects the file afterwards."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    from ..worker import JobFailure, JobRunner

    if QApplication.instance() is None:
        for _ in job:
            pass
        return
    loop, failures = QEventLoop(), []

    def on_end(failure: JobFailure | None) -> None:
        failures.append(failure)
        loop.quit()

    runner = JobRunner("save layers")
    runner.start(lambda: job, lambda item: None, on_end)
    if not failures:
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    if failures[0] is not None:
        raise failures[0].error
