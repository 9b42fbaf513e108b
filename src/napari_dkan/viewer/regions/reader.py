"""npe2 reader: regions by drag and drop, as shapes on the slide."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]

PEEK = 4_096
GEOJSON = re.compile(rb'"type"\s*:\s*"(Feature|FeatureCollection|(Multi)?Polygon)"')


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for GeoJSON; other JSON is left to other readers."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_regions_file if paths and all(map(_ours, paths)) else None


def read_regions_file(path: PathOrPaths) -> list[Any]:
    """No layer yet: the session reads the files off the window's thread and adds them.

    Without a viewer the layers' data are given back. Raises SpotsError.
    """
    import napari

    from ...spatial.regions import named_regions
    from .shapes import region_layers

    paths = [Path(p) for p in ([path] if isinstance(path, str) else path)]
    viewer = napari.current_viewer()
    if viewer is None:
        made = [layer for p in paths for layer in region_layers(named_regions(p), p.name, None)]
        return [layer.as_layer_data_tuple() for layer in made]
    from ..session import session_of
    from .bringing import bringing_of

    for each in paths:
        bringing_of(session_of(viewer)).bring(each)
    return [(None,)]  # napari's word for: read, and nothing to add


def _ours(path: str) -> bool:
    name = path.lower()
    if name.endswith((".geojson", ".geojson.gz")):
        return True
    try:
        with open(path, "rb") as file:
            return bool(GEOJSON.search(file.read(PEEK)))
    except OSError:
        return False
