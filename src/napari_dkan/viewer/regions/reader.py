"""npe2 reader: regions by drag and drop, as shapes on the slide."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]

GEOJSON_PEEK_BYTES = 4_096
GEOJSON_PATTERN = re.compile(rb'"type"\s*:\s*"(Feature|FeatureCollection|(Multi)?Polygon)"')


def get_region_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for GeoJSON; other JSON is left to other readers."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_regions_file if paths and all(map(_is_geojson, paths)) else None


def read_regions_file(path: PathOrPaths) -> list[Any]:
    """No layer yet: the session reads the files off the window's thread and adds them.

    Without a viewer the layers' data are given back. Raises SpotsError.
    """
    import napari

    from ...spatial.regions import read_named_regions
    from .shapes import make_region_layers

    paths = [Path(p) for p in ([path] if isinstance(path, str) else path)]
    viewer = napari.current_viewer()
    if viewer is None:
        made = [layer for p in paths for layer in make_region_layers(read_named_regions(p), p.name, None)]
        return [layer.as_layer_data_tuple() for layer in made]
    from ..session import get_session
    from .bringing import get_region_importer

    for each in paths:
        get_region_importer(get_session(viewer)).import_file(each)
    return [(None,)]  # napari's word for: read, and nothing to add


def _is_geojson(path: str) -> bool:
    name = path.lower()
    if name.endswith((".geojson", ".geojson.gz")):
        return True
    try:
        with open(path, "rb") as file:
            return bool(GEOJSON_PATTERN.search(file.read(GEOJSON_PEEK_BYTES)))
    except OSError:
        return False
