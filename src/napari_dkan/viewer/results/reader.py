"""npe2 reader: results that were saved here come back with their view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]


def get_result_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for our own .h5ad; None leaves all others to whoever reads measured ST."""
    from ...export.reopen import is_saved_result

    paths = [path] if isinstance(path, str) else list(path)
    return read_results if paths and all(is_saved_result(p) for p in paths) else None


def read_results(path: PathOrPaths) -> list[Any]:
    """Nothing yet: the session reads the files off the window's thread, finds their slides and
    shows them. Without a window the maps themselves, as layers of their first or last gene.

    Raises ResultError where there is no window and the file is damaged.
    """
    import napari

    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    viewer = napari.current_viewer()
    if viewer is None:
        return [_make_layer_data(p) for p in paths]
    from qtpy.QtCore import QTimer

    QTimer.singleShot(0, partial(_open_in_panel, viewer, paths))
    return [(None,)]  # napari's word for: read, and there is no layer to add


def _open_in_panel(viewer: Any, paths: Sequence[Path]) -> None:
    """The panel says what was found, and shows what the map means."""
    from ..actions import PREDICT_PANEL, open_panel_dock
    from ..session import get_session
    from .state import get_results_controller

    open_panel_dock(viewer, PREDICT_PANEL)
    for path in paths:
        get_results_controller(get_session(viewer)).open_result(path)


def _make_layer_data(path: Path) -> Any:
    from ...export.reopen import load_result
    from ..overlay import percentile_limits
    from .finding import LocatedResult
    from .restoring import make_overlay

    saved = load_result(path)
    overlay = make_overlay(LocatedResult(path, saved, None, None, None), saved.slide_record.mpp)
    view, panel = saved.view_settings, overlay.prediction.panel
    gene = view.gene if view is not None and view.gene in panel else panel.symbols[0]
    colormap = "magma" if view is None else view.colormap
    overlay.draw(gene or "", percentile_limits([overlay.prediction.get_gene_values(gene or "")]), colormap)
    return overlay.layer.as_layer_data_tuple()
