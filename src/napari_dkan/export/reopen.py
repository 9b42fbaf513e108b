"""Opening a saved result again, bit for bit, from a file that anybody may have changed."""

from __future__ import annotations

from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError, ResultError
from ..expression.label_scale import LabelScale
from ..expression.panel import Gene, Panel
from ..inference.evidence import NAMES
from ..inference.prediction import Prediction
from ..inference.target import Kind, Target
from ..probe import hdf5_doubt
from ..spatial.grid import TileGrid
from ..spatial.spots import Spots
from .anndata import REASONS
from .fields import Damaged, array, entry, json_object, maybe, number, pair, texts
from .picture import Picture
from .saved import (
    CELLS,
    EVIDENCE,
    FAILED,
    FORMAT,
    GROUP,
    KEY,
    NAME,
    TOKENS,
    Judgement,
    Saved,
    SlideRecord,
    View,
)

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from shapely.geometry.base import BaseGeometry

_DOCUMENT = f"uns/{GROUP}/{KEY}"
_TAIL = 64 << 20  # bytes at a file's end, where AnnData writes ``uns``


def is_ours(path: str | Path) -> bool:
    """Whether a file is a result that `reopen` takes, by a look into it; never raises.

    Takes a moment for a file of another origin; one of ours is read through by another process
    first, as damaged HDF5 may end the one that opens it.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, SEEK_END)
            file.seek(max(size - _TAIL, 0))
            if GROUP.encode() not in file.read(_TAIL):
                return False
        return not hdf5_doubt(path) and _has_document(Path(path))
    except (OSError, ValueError):
        return False


def reopen(path: str | Path) -> Saved:
    """A saved result as it was, whatever spots and genes of it were kept by other programs.

    Sizes are compared with the file's before anything is read, and nothing in it is executed.

    Raises ResultError of one sentence when the file is missing, damaged or none of ours.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise ResultError(f"There is no file {path}; check the path.")
    if doubt := hdf5_doubt(path):
        raise ResultError(f"{path.name} is not opened: {doubt}; copy or predict it again.")
    if not _has_document(path):
        raise ResultError(
            f"{path.name} is no result that napari-dkan has saved; open an .h5ad of "
            "`napari-dkan predict` or of the panel's Save button."
        )
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except _Newer:
        raise ResultError(
            f"{path.name} was saved by a newer napari-dkan; update napari-dkan to open it."
        ) from None
    except MemoryError:
        raise ResultError(
            f"{path.name} does not fit into memory; close other programs and try again."
        ) from None
    except Exception as error:  # h5py, anndata and shapely raise a dozen kinds for damaged files
        reason = str(error).rstrip(".").splitlines()
        said = f" ({reason[0]})" if isinstance(error, DkanError | Damaged) and reason else ""
        raise ResultError(f"{path.name} is damaged{said}; copy or predict it again.") from error


def _has_document(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _DOCUMENT in file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return False


class _Newer(Exception):
    pass


def _read(file: h5py.File) -> Saved:
    from anndata.io import read_elem

    told = json_object(read_elem(file[_DOCUMENT]))
    if entry(told, "format", int) > FORMAT:
        raise _Newer
    obs, var, obsm = read_elem(file["obs"]), read_elem(file["var"]), file["obsm"]
    count = len(obs)
    values = array(file["X"], np.float32, (count, len(var)))
    tokens = array(obsm[TOKENS], np.float32, (count, None))
    panel = _panel(told, [str(g) for g in var.index])
    record, scale = entry(told, "slide", dict), entry(told, "label_scale", dict)
    zero_shot = tuple(g for g in texts(told, "zero_shot") if g in panel)
    provenance = entry(told, "provenance", dict)
    return Saved(
        Prediction(
            _target(entry(told, "target", dict), obs, obsm),
            panel,
            LabelScale(
                number(scale, "target_sum"), number(scale, "base"), entry(scale, "smoothing", int)
            ),
            values,
            tokens,
            provenance,
            zero_shot,
            _failed(told, obs),
            _evidence(told, obsm, count),
        ),
        SlideRecord(
            entry(record, "name", str),
            entry(record, "path", str),
            entry(record, "fingerprint", str),
            entry(record, "width", int),
            entry(record, "height", int),
            number(record, "mpp"),
            entry(record, "mpp_origin", str),
        ),
        entry(told, "card", dict),
        _reliability(obs),
        _regions(told),
        _view(told),
        {str(k): str(v) for k, v in entry(told, "versions", dict).items()},
        _picture(file),
    )


def _target(told: dict[str, Any], obs: pd.DataFrame, obsm: h5py.Group) -> Target:
    count = len(obs)
    places = None
    if entry(told, "array", bool):
        places = obs[["array_col", "array_row"]].to_numpy(np.int64)
    names = obs.get(NAME, obs.index)
    spots = Spots(
        array(obsm["spatial"], np.float64, (count, 2)),
        places,
        tuple(str(n) for n in names) if entry(told, "named", bool) else (),
        maybe(told, "diameter_um"),
        maybe(told, "pitch_um"),
    )
    grid = told["grid"]
    if grid is not None:
        cells = array(obsm[CELLS], np.int64, (count, 2))
        pitch, pitch_um = number(grid, "pitch"), number(grid, "pitch_um")
        if not (pitch > 0 and pitch_um > 0):
            raise Damaged("its grid has no pitch")
        if len(np.unique(cells, axis=0)) != count:
            raise Damaged("its grid has a cell twice")
        # a raster of the grid must not be far larger than what it holds
        if np.ptp(cells.astype(np.float64), axis=0).max(initial=0) > 1e5:
            raise Damaged("its grid is larger than any slide")
        grid = TileGrid(pitch, pitch_um, cells)
    return Target(Kind(entry(told, "kind", str)), spots, grid)


def _panel(told: dict[str, Any], symbols: list[str]) -> Panel:
    """The genes that are there; other programs may have taken some away."""
    known = {}
    for gene in entry(told, "panel", list):
        aliases = tuple(texts(gene, "aliases"))
        known[entry(gene, "symbol", str)] = Gene(
            gene["symbol"], entry(gene, "ensembl", str), entry(gene, "name", str), aliases
        )
    return Panel(tuple(known.get(s) or Gene(s) for s in symbols))


def _failed(told: dict[str, Any], obs: pd.DataFrame) -> NDArray[np.bool_]:
    if not entry(told, "failed", bool):
        return np.empty(0, bool)
    return obs[FAILED].to_numpy(bool) if FAILED in obs else np.zeros(len(obs), bool)


def _evidence(told: dict[str, Any], obsm: h5py.Group, count: int) -> NDArray[np.float32]:
    """Columns by name: another version may note other things."""
    if EVIDENCE not in obsm:
        return np.empty((0, len(NAMES)), np.float32)
    names = texts(told, "evidence")
    stored = array(obsm[EVIDENCE], np.float32, (count, len(names)))
    if names == list(NAMES):
        return stored
    blank = np.full(count, np.nan, np.float32)
    columns = [stored[:, names.index(n)] if n in names else blank for n in NAMES]
    return np.stack(columns, axis=1)


def _reliability(obs: pd.DataFrame) -> Judgement | None:
    if not {"reliability", "unreliable", "reliability_reasons"} <= set(obs.columns):
        return None
    said = (str(text) for text in obs["reliability_reasons"])
    return Judgement(
        obs["reliability"].to_numpy(np.float32),
        obs["unreliable"].to_numpy(bool),
        tuple(tuple(text.split(REASONS)) if text else () for text in said),
    )


def _regions(told: dict[str, Any]) -> BaseGeometry | None:
    from shapely.geometry import MultiPolygon, Polygon, shape

    if told["regions"] is None:
        return None
    region = shape(entry(told, "regions", dict))
    if not isinstance(region, Polygon | MultiPolygon):
        raise Damaged("its regions are no polygons")
    if not region.is_empty and not np.isfinite(region.bounds).all():
        raise Damaged("its regions have no finite corners")
    return region


def _view(told: dict[str, Any]) -> View | None:
    if told["view"] is None:
        return None
    view = entry(told, "view", dict)
    gene = None if view["gene"] is None else entry(view, "gene", str)
    return View(
        gene,
        tuple(texts(view, "pinned")),
        pair(view, "limits"),
        entry(view, "colormap", str),
        number(view, "opacity"),
        entry(view, "hatch", bool),
        pair(view, "centre"),
        maybe(view, "zoom"),
    )


def _picture(file: h5py.File) -> Picture | None:
    """Of the first library that has one."""
    for library in file["uns/spatial"].values():
        if "images/hires" in library:
            rgb = library["images/hires"][()]
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
                raise Damaged("its picture is no RGB image")
            factor = float(library["scalefactors/tissue_hires_scalef"][()])
            if not 0 < factor <= 1:
                raise Damaged("its picture has no scale")
            return Picture(rgb, factor)
    return None
