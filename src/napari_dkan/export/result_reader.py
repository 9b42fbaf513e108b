"""Load a saved result bit for bit, with validation of every entry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError, ResultError
from ..expression.label_scale import LabelScale
from ..expression.panel import Gene, Panel
from ..hdf5_validation import validate_hdf5
from ..inference.prediction import Prediction
from ..inference.target import Target, TargetKind
from ..inference.tile_qc_features import QC_FEATURE_NAMES
from ..spatial.spots import Spots
from ..spatial.tile_grid import TileGrid
from .anndata_export import LAYER_SPREAD, REASON_SEPARATOR
from .histology import SlideOverview
from .result_entries import (
    DamagedResultError,
    get_entry,
    get_number,
    get_number_pair,
    get_optional_number,
    get_strings,
    parse_json_object,
    read_array,
)
from .saved_result import (
    OBS_FAILED,
    OBS_SPOT_NAME,
    OBSM_CELLS,
    OBSM_QC_FEATURES,
    OBSM_TOKENS,
    RESULT_FORMAT_VERSION,
    UNS_DOCUMENT_KEY,
    UNS_GROUP,
    SavedReliability,
    SavedResult,
    SlideRecord,
    ViewSettings,
)

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from shapely.geometry.base import BaseGeometry

_DOCUMENT_PATH = f"uns/{UNS_GROUP}/{UNS_DOCUMENT_KEY}"
_TAIL_BYTES = 64 << 20  # of a file, where AnnData writes ``uns``


def is_saved_result(path: str | Path) -> bool:
    """Check whether a file is a result that `load_result` reads; never raises.

    Other files are recognized by their tail. A result is validated in a child process first, as
    damaged HDF5 may crash the process that opens it.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            if UNS_GROUP.encode() not in file.read(_TAIL_BYTES):
                return False
        return not validate_hdf5(path) and _has_document(Path(path))
    except (OSError, ValueError):
        return False


def load_result(path: str | Path) -> SavedResult:
    """Load a saved result, or the subset of its spots and genes that another program wrote.

    Sizes are compared with the file's before anything is read, and nothing in it is executed.

    Raises
    ------
    ResultError
        When the file is missing, damaged or not a result.
    """
    with _open_result(path) as file:
        return _read_result(file)


@dataclass(frozen=True)
class ResultSummary:
    """What a saved result is of, without its values; reliability is None where it has none."""

    provenance: dict[str, Any]
    n_spots: int
    n_genes: int
    n_unreliable: int | None
    mean_reliability: float | None


def read_result_summary(path: str | Path) -> ResultSummary:
    """Read what a saved result records, without anndata and far faster than `load_result`.

    Every dataset is read for damage as in `load_result`, but not compared with the others.

    Raises
    ------
    ResultError
        When the file is missing, damaged or not a result.
    """
    with _open_result(path) as file:
        document = _read_document(file[_DOCUMENT_PATH].asstr()[()])
        n_spots, n_genes = file["X"].shape
        score, unreliable = (file["obs"].get(name) for name in ("reliability", "unreliable"))
        is_scored = score is not None and unreliable is not None
        return ResultSummary(
            get_entry(document, "provenance", dict),
            n_spots,
            n_genes,
            int(unreliable[()].sum()) if is_scored else None,
            float(score[()].mean()) if is_scored else None,
        )


@contextmanager
def _open_result(path: str | Path) -> Iterator[h5py.File]:
    """Open a validated file; all that fails while it is open becomes a ResultError."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise ResultError(f"There is no file {path}; check the path.")
    if doubt := validate_hdf5(path):
        raise ResultError(f"{path.name} is not opened: {doubt}; copy or predict it again.")
    if not _has_document(path):
        raise ResultError(
            f"{path.name} is no result that napari-dkan has saved; open an .h5ad of "
            "`napari-dkan predict` or of the panel's Save button."
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except _NewerFormatError:
        raise ResultError(
            f"{path.name} was saved by a newer napari-dkan; update napari-dkan to open it."
        ) from None
    except MemoryError:
        raise ResultError(
            f"{path.name} does not fit into memory; close other programs and try again."
        ) from None
    except Exception as error:  # h5py, anndata and shapely raise many types for damaged files
        lines = str(error).rstrip(".").splitlines()
        has_reason = isinstance(error, DkanError | DamagedResultError) and lines
        reason = f" ({lines[0]})" if has_reason else ""
        raise ResultError(f"{path.name} is damaged{reason}; copy or predict it again.") from error


def _has_document(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _DOCUMENT_PATH in file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return False


class _NewerFormatError(Exception):
    pass


def _read_document(text: Any) -> dict[str, Any]:
    document = parse_json_object(text)
    if get_entry(document, "format", int) > RESULT_FORMAT_VERSION:
        raise _NewerFormatError
    return document


def _read_result(file: h5py.File) -> SavedResult:
    from anndata.io import read_elem

    document = _read_document(read_elem(file[_DOCUMENT_PATH]))
    obs, var, obsm = read_elem(file["obs"]), read_elem(file["var"]), file["obsm"]
    count = len(obs)
    values = read_array(file["X"], np.float32, (count, len(var)))
    tokens = read_array(obsm[OBSM_TOKENS], np.float32, (count, None))
    panel = _read_panel(document, [str(g) for g in var.index])
    record, scale = get_entry(document, "slide", dict), get_entry(document, "label_scale", dict)
    zero_shot = tuple(g for g in get_strings(document, "zero_shot") if g in panel)
    provenance = get_entry(document, "provenance", dict)
    return SavedResult(
        Prediction(
            _read_target(get_entry(document, "target", dict), obs, obsm),
            panel,
            LabelScale(
                get_number(scale, "target_sum"),
                get_number(scale, "base"),
                get_entry(scale, "smoothing", int),
            ),
            values,
            tokens,
            provenance,
            zero_shot,
            _read_failed_mask(document, obs),
            _read_qc_features(document, obsm, count),
            spread=_read_spread(file, values.shape),
        ),
        SlideRecord(
            get_entry(record, "name", str),
            get_entry(record, "path", str),
            get_entry(record, "fingerprint", str),
            get_entry(record, "width", int),
            get_entry(record, "height", int),
            get_number(record, "mpp"),
            get_entry(record, "mpp_origin", str),
            str(record.get("image") or ""),
            _read_scan_origin(record),
        ),
        get_entry(document, "card", dict),
        _read_reliability(obs),
        _read_regions(document),
        _read_view_settings(document),
        {str(k): str(v) for k, v in get_entry(document, "versions", dict).items()},
        _read_overview(file),
    )


def _read_scan_origin(record: dict[str, Any]) -> tuple[int, int] | None:
    """Return the corner of the scan area; results of earlier versions do not state it."""
    if record.get("scan_origin") is None:
        return None
    x, y = get_entry(record, "scan_origin", list)
    return int(x), int(y)


def _read_target(document: dict[str, Any], obs: pd.DataFrame, obsm: h5py.Group) -> Target:
    count = len(obs)
    array = None
    if get_entry(document, "array", bool):
        array = obs[["array_col", "array_row"]].to_numpy(np.int64)
    names = obs.get(OBS_SPOT_NAME, obs.index)
    spots = Spots(
        read_array(obsm["spatial"], np.float64, (count, 2)),
        array,
        tuple(str(n) for n in names) if get_entry(document, "named", bool) else (),
        get_optional_number(document, "diameter_um"),
        get_optional_number(document, "pitch_um"),
    )
    grid = document["grid"]
    if grid is not None:
        cells = read_array(obsm[OBSM_CELLS], np.int64, (count, 2))
        pitch, pitch_um = get_number(grid, "pitch"), get_number(grid, "pitch_um")
        if not (pitch > 0 and pitch_um > 0):
            raise DamagedResultError("its grid has no pitch")
        if len(np.unique(cells, axis=0)) != count:
            raise DamagedResultError("its grid has a cell twice")
        # The raster of a grid must not be far larger than its cells.
        if np.ptp(cells.astype(np.float64), axis=0).max(initial=0) > 1e5:
            raise DamagedResultError("its grid is larger than any slide")
        grid = TileGrid(pitch, pitch_um, cells)
    return Target(TargetKind(get_entry(document, "kind", str)), spots, grid)


def _read_panel(document: dict[str, Any], symbols: list[str]) -> Panel:
    """The genes of the table; another program may have removed some."""
    known = {}
    for gene in get_entry(document, "panel", list):
        aliases = tuple(get_strings(gene, "aliases"))
        known[get_entry(gene, "symbol", str)] = Gene(
            gene["symbol"], get_entry(gene, "ensembl", str), get_entry(gene, "name", str), aliases
        )
    return Panel(tuple(known.get(s) or Gene(s) for s in symbols))


def _read_failed_mask(document: dict[str, Any], obs: pd.DataFrame) -> NDArray[np.bool_]:
    if not get_entry(document, "failed", bool):
        return np.empty(0, bool)
    return obs[OBS_FAILED].to_numpy(bool) if OBS_FAILED in obs else np.zeros(len(obs), bool)


def _read_qc_features(
    document: dict[str, Any], obsm: h5py.Group, count: int
) -> NDArray[np.float32]:
    """Columns by name, as other versions may have other features."""
    if OBSM_QC_FEATURES not in obsm:
        return np.empty((0, len(QC_FEATURE_NAMES)), np.float32)
    names = get_strings(document, "evidence")
    stored = read_array(obsm[OBSM_QC_FEATURES], np.float32, (count, len(names)))
    if names == list(QC_FEATURE_NAMES):
        return stored
    missing = np.full(count, np.nan, np.float32)
    columns = [stored[:, names.index(n)] if n in names else missing for n in QC_FEATURE_NAMES]
    return np.stack(columns, axis=1)


def _read_spread(file: h5py.File, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The spread of the values, for results of networks that have one."""
    layers = file.get("layers")
    if layers is None or LAYER_SPREAD not in layers:
        return None
    return read_array(layers[LAYER_SPREAD], np.float32, shape)


def _read_reliability(obs: pd.DataFrame) -> SavedReliability | None:
    if not {"reliability", "unreliable", "reliability_reasons"} <= set(obs.columns):
        return None
    reasons = (str(text) for text in obs["reliability_reasons"])
    return SavedReliability(
        obs["reliability"].to_numpy(np.float32),
        obs["unreliable"].to_numpy(bool),
        tuple(tuple(text.split(REASON_SEPARATOR)) if text else () for text in reasons),
    )


def _read_regions(document: dict[str, Any]) -> BaseGeometry | None:
    from shapely.geometry import MultiPolygon, Polygon, shape

    if document["regions"] is None:
        return None
    region = shape(get_entry(document, "regions", dict))
    if not isinstance(region, Polygon | MultiPolygon):
        raise DamagedResultError("its regions are no polygons")
    if not region.is_empty and not np.isfinite(region.bounds).all():
        raise DamagedResultError("its regions have no finite corners")
    return region


def _read_view_settings(document: dict[str, Any]) -> ViewSettings | None:
    if document["view"] is None:
        return None
    view = get_entry(document, "view", dict)
    gene = None if view["gene"] is None else get_entry(view, "gene", str)
    by_gene = get_entry(view, "limits_by_gene", dict) if "limits_by_gene" in view else {}
    return ViewSettings(
        gene,
        tuple(get_strings(view, "pinned")),
        get_number_pair(view, "limits"),
        get_entry(view, "colormap", str),
        get_number(view, "opacity"),
        get_entry(view, "hatch", bool),
        get_number_pair(view, "centre"),
        get_optional_number(view, "zoom"),
        {symbol: pair for symbol in by_gene if (pair := get_number_pair(by_gene, symbol))},
    )


def _read_overview(file: h5py.File) -> SlideOverview | None:
    """The overview of the first library that has one."""
    for library in file["uns/spatial"].values():
        if "images/hires" in library:
            rgb = library["images/hires"][()]
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
                raise DamagedResultError("its picture is no RGB image")
            scale = float(library["scalefactors/tissue_hires_scalef"][()])
            if not 0 < scale <= 1:
                raise DamagedResultError("its picture has no scale")
            return SlideOverview(rgb, scale)
    return None
