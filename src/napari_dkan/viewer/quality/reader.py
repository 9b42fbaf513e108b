"""npe2 reader: measured spots by drag and drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]

_SPACE_RANGER_COUNTS = "feature_bc_matrix"


def get_measured_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for measured sections; None leaves everything else to other readers."""
    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    return read_measured_section if _is_measured_section(paths) else None


def read_measured_section(path: PathOrPaths) -> list[Any]:
    """An empty Points layer: the session reads the files off the window's thread and fills it."""
    import napari
    import numpy as np

    from .loading import LoadRequest
    from .section import SECTION_KEY

    viewer = napari.current_viewer()
    shared = None if viewer is None or not viewer.layers else viewer.layers[-1].units
    paths = (Path(path),) if isinstance(path, str) else tuple(Path(p) for p in path)
    options = {
        "name": f"measured - {paths[0].name}",
        "ndim": 2,
        "units": shared or ("um", "um"),  # napari minds layers that differ
        "axis_labels": ("y", "x"),
        "metadata": {SECTION_KEY: LoadRequest(paths)},
    }
    if viewer is not None:  # there may be no panel yet that would take the layer
        from qtpy.QtCore import QTimer

        QTimer.singleShot(0, partial(_create_quality_controller, viewer))
    return [(np.empty((0, 2)), options, "points")]


def _create_quality_controller(viewer: Any) -> None:
    from ..session import get_session
    from .state import get_quality_controller

    get_quality_controller(get_session(viewer))


def _is_measured_section(paths: Sequence[Path]) -> bool:
    """Whether expression/ finds a section there, without reading it."""
    from ...errors import SpotsError
    from ...export.reopen import is_saved_result
    from .finding import find_candidates

    if not paths or not all(p.exists() for p in paths):
        return False
    first = paths[0]
    if first.suffix == ".h5ad" and is_saved_result(first):
        return False  # predicted, not measured
    if first.suffix == ".h5" and _SPACE_RANGER_COUNTS not in first.name:
        return False  # whatever else HDF5 may hold
    try:
        return bool(find_candidates(paths))
    except SpotsError:
        # a counts matrix of Space Ranger's that lies alone gets a sentence of ours
        return len(paths) == 1 and first.suffix == ".h5"
