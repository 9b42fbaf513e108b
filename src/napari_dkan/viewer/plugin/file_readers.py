"""npe2 readers of slides, measured sections, results, spots, regions and feature files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]
NO_LAYER = (None,)  # tells napari that a file was read but has no layer

_SPACE_RANGER_COUNTS = "feature_bc_matrix"


def get_slide_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for slides; None for stacks of files and other folders.

    A SpatialData store is a zarr folder as well, but contains measured spots.
    """
    from ...expression.readers.layouts.spatialdata_sections import find_spatialdata_sections
    from ...slide.slide_location import is_zarr_folder

    name = path if isinstance(path, str) else path[0]
    is_stack = not isinstance(path, str) and len(path) != 1
    folder = Path(name)
    if is_stack or (
        folder.is_dir() and (not is_zarr_folder(folder) or find_spatialdata_sections(folder))
    ):
        return None
    return read_slides


def read_slides(path: PathOrPaths) -> list[Any]:
    """Open a slide with the pixel size that the user entered before, or else that of the file.

    Raises
    ------
    SlideError
        Shown by napari as a notification, and in the panels.
    """
    from ...errors import SlideError
    from ...slide import open_slide
    from ..session.pixel_size_sources import recall_pixel_size
    from ..session.slide_layer import make_slide_layer
    from ..session.viewer_settings import is_icc_enabled, is_whole_glass_shown

    try:
        slide = open_slide(
            path if isinstance(path, str) else path[0],
            apply_icc=is_icc_enabled(),
            whole_glass=is_whole_glass_shown(),
        )
    except SlideError as error:
        _show_in_panel(str(error))
        raise
    slide.prefetch()
    remembered = recall_pixel_size(slide) if slide.path is not None else None
    return [make_slide_layer(slide, remembered or slide.pixel_size)]


def _show_in_panel(sentence: str) -> None:
    """Show a warning in the panels of the current viewer, if there are any."""
    import napari

    from ..session.viewer_session import find_session

    viewer = napari.current_viewer()
    session = None if viewer is None else find_session(viewer)
    if session is not None:
        session.message.show(sentence, warning=True)


def get_measured_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for measured sections; None for other files."""
    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    return read_measured_section if _is_measured_section(paths) else None


def read_measured_section(path: PathOrPaths) -> list[Any]:
    """Return an empty Points layer; the session reads the files in a thread and fills it."""
    import napari
    import numpy as np

    from ..panels.quality.data.loaded_section import SECTION_KEY
    from ..panels.quality.data.section_loader import LoadRequest

    viewer = napari.current_viewer()
    shared = None if viewer is None or not viewer.layers else viewer.layers[-1].units
    paths = (Path(path),) if isinstance(path, str) else tuple(Path(p) for p in path)
    options = {
        "name": f"measured - {paths[0].name}",
        "ndim": 2,
        "units": shared or ("um", "um"),  # napari warns if the units of layers differ
        "axis_labels": ("y", "x"),
        "metadata": {SECTION_KEY: LoadRequest(paths)},
    }
    if viewer is not None:  # a panel that fills the layer may not exist yet
        from qtpy.QtCore import QTimer

        QTimer.singleShot(0, partial(_create_quality_controller, viewer))
    return [(np.empty((0, 2)), options, "points")]


def _create_quality_controller(viewer: Any) -> None:
    from ..panels.quality.quality_controller import get_quality_controller
    from ..session.viewer_session import get_session

    get_quality_controller(get_session(viewer))


def _is_measured_section(paths: Sequence[Path]) -> bool:
    """Whether the files are a measured section, without reading it."""
    from ...errors import SpotsError
    from ...export.result_reader import is_saved_result
    from ..panels.quality.data.section_finder import find_candidates

    if not paths or not all(p.exists() for p in paths):
        return False
    first = paths[0]
    if first.suffix == ".h5ad" and is_saved_result(first):
        return False  # predicted, not measured
    if first.suffix == ".h5" and _SPACE_RANGER_COUNTS not in first.name:
        return False  # another HDF5 file
    try:
        return bool(find_candidates(paths))
    except SpotsError:
        # A count matrix of Space Ranger without its other files gets an error message.
        return len(paths) == 1 and first.suffix == ".h5"


def get_result_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for saved predictions; None for other .h5ad files."""
    from ...export.result_reader import is_saved_result

    paths = [path] if isinstance(path, str) else list(path)
    return read_results if paths and all(is_saved_result(p) for p in paths) else None


def read_results(path: PathOrPaths) -> list[Any]:
    """Open saved predictions in the current viewer.

    The session reads the files in a thread and adds their layers, so no layer is returned.
    Without a viewer, the layers of the saved or first gene are returned.

    Raises
    ------
    ResultError
        Without a viewer, if a file is damaged.
    """
    import napari

    paths = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    viewer = napari.current_viewer()
    if viewer is None:
        return [_make_layer_data(p) for p in paths]
    from qtpy.QtCore import QTimer

    QTimer.singleShot(0, partial(_open_in_panel, viewer, paths))
    return [NO_LAYER]


def _open_in_panel(viewer: Any, paths: Sequence[Path]) -> None:
    """Open the Predict panel, which reports errors, and the files."""
    from ..panels.results.results_controller import get_results_controller
    from ..session.shortcut_actions import PREDICT_PANEL, open_panel_dock
    from ..session.viewer_session import get_session

    open_panel_dock(viewer, PREDICT_PANEL)
    for path in paths:
        get_results_controller(get_session(viewer)).open_result(path)


def _make_layer_data(path: Path) -> Any:
    from ...export.result_reader import load_result
    from ...inference.map_colors import DEFAULT_COLORMAP
    from ..layers.contrast_limits import percentile_limits
    from ..layers.prediction_layers import format_overlay_title
    from ..panels.results.restore_result import LocatedResult, make_overlay

    saved = load_result(path)
    overlay = make_overlay(LocatedResult(path, saved, None, None, None), saved.slide_record.mpp)
    view, panel = saved.view_settings, overlay.prediction.panel
    gene = view.gene if view is not None and view.gene in panel else panel.symbols[0]
    colormap = DEFAULT_COLORMAP if view is None else view.colormap
    overlay.draw(
        gene or "", percentile_limits([overlay.prediction.get_gene_values(gene or "")]), colormap
    )
    overlay.layer.name = format_overlay_title(overlay, gene or "")
    return overlay.layer.as_layer_data_tuple()


SPOT_TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx", ".parquet")
_NAPARI_COLUMNS = {"axis-0", "axis-1"}  # of points and shapes that napari saves


def get_spots_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for tables of spot positions; None for measured sections and napari's CSV."""
    paths = [path] if isinstance(path, str) else list(path)
    tables = [Path(p) for p in paths]
    if not tables or not all(map(_is_spot_table, tables)) or _is_measured_section(tables):
        return None
    return read_spot_tables


def read_spot_tables(path: PathOrPaths) -> list[Any]:
    """Add spots to the current slide; the session reads the files in a thread.

    Raises
    ------
    SpotsError
        Without a viewer.
    """
    import napari

    from ...errors import SpotsError
    from ..panels.regions.spot_import import get_spot_importer
    from ..session.viewer_session import get_session

    viewer = napari.current_viewer()
    if viewer is None:
        raise SpotsError("Open a slide in napari first, then drop the spots on it.")
    for each in [path] if isinstance(path, str) else path:
        get_spot_importer(get_session(viewer)).import_file(Path(each))
    return [NO_LAYER]


def _is_spot_table(path: Path) -> bool:
    name = path.name.lower()
    if not name.endswith(SPOT_TABLE_SUFFIXES) or not path.is_file():
        return False
    if not name.endswith(".csv"):
        return True
    with path.open("rb") as file:
        header = file.readline(4_096).decode(errors="replace")
    return not set(header.strip().split(",")) >= _NAPARI_COLUMNS


GEOJSON_PEEK_BYTES = 4_096
GEOJSON_PATTERN = re.compile(rb'"type"\s*:\s*"(Feature|FeatureCollection|(Multi)?Polygon)"')


def get_region_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for GeoJSON; None for other JSON files."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_regions_file if paths and all(map(_is_geojson, paths)) else None


def read_regions_file(path: PathOrPaths) -> list[Any]:
    """Add regions to the current viewer.

    The session reads the files in a thread and adds their layers, so no layer is returned.
    Without a viewer, the layers are returned.

    Raises
    ------
    SpotsError
        Without a viewer, if a file is damaged.
    """
    import napari

    from ...spatial.region_files import read_named_regions
    from ..layers.region_layers import make_region_layers

    paths = [Path(p) for p in ([path] if isinstance(path, str) else path)]
    viewer = napari.current_viewer()
    if viewer is None:
        return [
            layer.as_layer_data_tuple()
            for p in paths
            for layer in make_region_layers(read_named_regions(p), p.name, None)
        ]
    from ..panels.regions.region_import import get_region_importer
    from ..session.viewer_session import get_session

    for each in paths:
        get_region_importer(get_session(viewer)).import_file(each)
    return [NO_LAYER]


def _is_geojson(path: str) -> bool:
    name = path.lower()
    if name.endswith((".geojson", ".geojson.gz")):
        return True
    try:
        with open(path, "rb") as file:
            return bool(GEOJSON_PATTERN.search(file.read(GEOJSON_PEEK_BYTES)))
    except OSError:
        return False


_PEEK_BYTES = 4 << 20


def get_feature_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for feature files of TRIDENT or CLAM; None for other files."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_feature_file if len(paths) == 1 and _has_feature_datasets(paths[0]) else None


def read_feature_file(path: PathOrPaths) -> list[Any]:
    """Use a feature file on the current slide; adds no layer.

    Raises
    ------
    SpotsError
        If no slide is open.
    """
    import napari

    from ...errors import SpotsError
    from ..session.viewer_session import get_session

    viewer = napari.current_viewer()
    if viewer is None:
        raise SpotsError("Open a slide in napari first, then drop the features on it.")
    get_session(viewer).use_feature_file(Path(path if isinstance(path, str) else path[0]))
    return [NO_LAYER]


def _has_feature_datasets(path: str) -> bool:
    """Search for the names of both datasets; the file is not validated for HDF5 yet."""
    try:
        with open(path, "rb") as file:
            start = file.read(_PEEK_BYTES)
            file.seek(max(0, Path(path).stat().st_size - _PEEK_BYTES))
            names = start + file.read(_PEEK_BYTES)
    except OSError:
        return False
    return start[:4] == b"\x89HDF" and b"coords\0" in names and b"features\0" in names
