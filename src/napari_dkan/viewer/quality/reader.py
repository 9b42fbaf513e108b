"""npe2 reader: measured spots by drag and drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]

_COUNTS_10X = "feature_bc_matrix"


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for measured sections; None leaves everything else to other readers."""
    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    return read_measured if _measured(paths) else None


def read_measured(path: PathOrPaths) -> list[Any]:
    """An empty Points layer: the session reads the files off the window's thread and fills it."""
    import napari
    import numpy as np

    from .loading import Order
    from .section import KEY

    viewer = napari.current_viewer()
    shared = None if viewer is None or not viewer.layers else viewer.layers[-1].units
    paths = (Path(path),) if isinstance(path, str) else tuple(Path(p) for p in path)
    options = {
        "name": f"measured - {paths[0].name}",
        "ndim": 2,
        "units": shared or ("um", "um"),  # napari minds layers that differ
        "axis_labels": ("y", "x"),
        "metadata": {KEY: Order(paths)},
    }
    if viewer is not None:  # there may be no panel yet that would take the layer
        from qtpy.QtCore import QTimer

        QTimer.singleShot(0, partial(_attend, viewer))
    return [(np.empty((0, 2)), options, "points")]


def _attend(viewer: Any) -> None:
    from ..session import session_of
    from .state import quality_of

    quality_of(session_of(viewer))


def _measured(paths: Sequence[Path]) -> bool:
    """Whether expression/ finds a section there, without reading it."""
    from ...errors import SpotsError
    from ...export.reopen import is_ours
    from .finding import find

    if not paths or not all(p.exists() for p in paths):
        return False
    first = paths[0]
    if first.suffix == ".h5ad" and is_ours(first):
        return False  # predicted, not measured
    if first.suffix == ".h5" and _COUNTS_10X not in first.name:
        return False  # whatever else HDF5 may hold
    try:
        return bool(find(paths))
    except SpotsError:
        # a counts matrix of Space Ranger's that lies alone gets a sentence of ours
        return len(paths) == 1 and first.suffix == ".h5"
