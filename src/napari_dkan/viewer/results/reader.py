"""npe2 reader: results that were saved here come back with their view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for our own .h5ad; None leaves all others to whoever reads measured ST."""
    from ...export.reopen import is_ours

    paths = [path] if isinstance(path, str) else list(path)
    return read_results if paths and all(is_ours(p) for p in paths) else None


def read_results(path: PathOrPaths) -> list[Any]:
    """Nothing yet: the session reads the files off the window's thread, finds their slides and
    shows them. Without a window the maps themselves, as layers of their first or last gene.

    Raises ResultError where there is no window and the file is damaged.
    """
    import napari

    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    viewer = napari.current_viewer()
    if viewer is None:
        return [_layer_of(p) for p in paths]
    from qtpy.QtCore import QTimer

    QTimer.singleShot(0, partial(_open, viewer, paths))
    return [(None,)]  # napari's word for: read, and there is no layer to add


def _open(viewer: Any, paths: Sequence[Path]) -> None:
    """The panel says what was found, and shows what the map means."""
    from ..actions import PREDICT, open_in
    from ..session import session_of
    from .state import results_of

    open_in(viewer, PREDICT)
    for path in paths:
        results_of(session_of(viewer)).open(path)


def _layer_of(path: Path) -> Any:
    from ...export.reopen import reopen
    from ..overlay import robust_limits
    from .finding import Found
    from .restoring import overlay_of

    saved = reopen(path)
    overlay = overlay_of(Found(path, saved, None, None, None), saved.slide.mpp)
    view, panel = saved.view, overlay.prediction.panel
    gene = view.gene if view is not None and view.gene in panel else panel.symbols[0]
    colormap = "magma" if view is None else view.colormap
    overlay.show(gene or "", robust_limits([overlay.prediction.gene(gene or "")]), colormap)
    return overlay.layer.as_layer_data_tuple()
