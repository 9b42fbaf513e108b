"""Read tile feature files of TRIDENT and CLAM (HDF5 with ``coords`` and ``features``)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5

MAX_TILES = 2_000_000
MAX_FEATURE_DIM = 16_384
MAX_SLIDE_PX = 10_000_000  # of a slide's side
MAX_READ_GAP = 64  # rows read along with their neighbours rather than with a read of their own

# what h5py raises on files that are damaged or something else
_HDF5_READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
)


@dataclass(frozen=True)
class TileFeatureFile:
    """What a file says of itself; features stay on disk until they are asked for.

    centres : (N, 2) float64 centres of its tiles in level-0 px.
    side : of a tile in level-0 px. stated : whether the file says so, or the distance of its tiles.
    px : side of the tiles as the encoder was given them, None when unknown.
    width : numbers in a row of features.
    encoder : as it is named there or by the folder, "" when nobody says.
    magnification : of level 0; size : of the slide in px; slide : its name; as far as stated.
    """

    path: Path
    centers: NDArray[np.float64]
    tile_side_px: float
    is_side_stated: bool
    tile_px: float | None
    feature_dim: int
    encoder_name: str
    magnification: float | None
    slide_size: tuple[float, float] | None
    slide_name: str

    def read_features(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, width) features of rows (M,) in any order.

        Raises SpotsError when the file is gone or damaged, or holds no numbers there.
        """
        import h5py

        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        found = np.empty((len(rows), self.feature_dim), np.float32)
        breaks = np.flatnonzero(np.diff(wanted) > MAX_READ_GAP) + 1
        try:
            with h5py.File(self.path, "r") as file:
                data = file["features"]
                for part in np.split(np.arange(len(wanted)), breaks) if len(wanted) else []:
                    first, last = int(wanted[part[0]]), int(wanted[part[-1]])
                    block = np.asarray(data[first : last + 1], np.float32)
                    found[order[part]] = block[wanted[part] - first]
        except _HDF5_READ_ERRORS as error:
            raise SpotsError(
                f"The features in {self.path.name} could not be read; is it still there and whole?"
            ) from error
        if not np.isfinite(found).all():
            raise SpotsError(f"{self.path.name} holds features that are not numbers; make it anew.")
        return found


def open_feature_file(path: str | Path) -> TileFeatureFile:
    """Open a feature file. Raises SpotsError naming it when it is none, or absurd."""
    import h5py

    path = Path(path)
    if not path.exists():
        raise SpotsError(f"There is no file {path}; check the path.")
    if doubt := validate_hdf5(path):
        raise SpotsError(f"{path.name} cannot be read: {doubt}; copy it again, or extract it anew.")
    try:
        with h5py.File(path, "r") as file:
            coords, features = (
                _get_local_dataset(file, "coords"),
                _get_local_dataset(file, "features"),
            )
            if coords is None or features is None:
                raise SpotsError(
                    f"{path.name} holds no tile features: it lacks the datasets 'coords' and "
                    "'features' that TRIDENT and CLAM write."
                )
            shape = features.shape
            fits = len(shape) == 2 and coords.shape == (shape[0], 2)
            if not fits or coords.dtype.kind not in "iuf" or features.dtype.kind != "f":
                raise SpotsError(
                    f"{path.name} has coords of shape {coords.shape} and features of {shape}; "
                    "needed are (N, 2) and (N, D) numbers."
                )
            if not 0 < shape[0] <= MAX_TILES or not 0 < shape[1] <= MAX_FEATURE_DIM:
                raise SpotsError(f"{path.name} holds {shape[0]:,} tiles of {shape[1]:,} numbers.")
            about = dict(file.attrs) | dict(features.attrs) | dict(coords.attrs)
            folder = _to_text(features.attrs.get("savetodir"))
            corners = np.asarray(coords[:], np.float64)
    except _HDF5_READ_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as HDF5; copy it again, or extract it anew."
        ) from error
    if not np.isfinite(corners).all() or np.abs(corners).max() > MAX_SLIDE_PX:
        raise SpotsError(f"{path.name} has coordinates that lie on no slide.")
    stated = _read_tile_side(about)
    side = stated or _estimate_tile_spacing(corners)
    if side is None or not 1 <= side <= MAX_SLIDE_PX:
        raise SpotsError(f"{path.name} does not say how large its tiles are; extract it anew.")
    width, height = (
        _get_positive_number(about, "level0_width"),
        _get_positive_number(about, "level0_height"),
    )
    return TileFeatureFile(
        path=path,
        centers=corners + side / 2,  # corners end here
        tile_side_px=side,
        is_side_stated=stated is not None,
        tile_px=_get_positive_number(about, "patch_size"),
        feature_dim=int(shape[1]),
        encoder_name=_find_encoder_name(about, folder, path),
        magnification=_get_positive_number(about, "level0_magnification"),
        slide_size=None if width is None or height is None else (width, height),
        slide_name=_to_text(about.get("name")),
    )


def _get_local_dataset(file: Any, name: str) -> Any:
    """A dataset whose numbers lie in this very file; None where there is none."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    found = file[name]
    inside = isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external
    return found if inside else None


def _read_tile_side(attributes: Mapping[str, Any]) -> float | None:
    """Side of a tile in level-0 px, where attributes say it."""
    side = _get_positive_number(attributes, "patch_size_level0")
    if side is not None:
        return side
    px, high, low = (
        _get_positive_number(attributes, name)
        for name in ("patch_size", "level0_magnification", "target_magnification")
    )
    if px is not None and high is not None and low is not None:
        return px * high / low
    if px is not None and attributes.get("patch_level") is not None:
        shrunk = np.asarray(attributes.get("downsample", 1.0), dtype=object).ravel()[0]
        factor = (
            _get_positive_number({"x": shrunk}, "x")
            if _get_positive_number(attributes, "patch_level")
            else 1.0
        )
        return (
            None
            if factor is None
            else px * factor * (_get_positive_number(attributes, "custom_downsample") or 1)
        )
    return None


def _estimate_tile_spacing(corners: NDArray[np.float64]) -> float | None:
    """The usual distance of tiles that follow each other in a row or a column."""
    steps = []
    for axis in (0, 1):
        order = np.lexsort((corners[:, axis], corners[:, 1 - axis]))
        line, place = corners[order, 1 - axis], corners[order, axis]
        along = np.diff(place)[np.diff(line) == 0]
        steps.append(along[along > 0])
    every = np.concatenate(steps)
    if not len(every):
        return None
    values, counts = np.unique(every, return_counts=True)
    return float(values[counts.argmax()])


def _find_encoder_name(attributes: Mapping[str, Any], folder: str, path: Path) -> str:
    for name in ("encoder", "encoder_name", "patch_encoder", "enc_name", "model_name"):
        if said := _to_text(attributes.get(name)):
            return said
    for place in (folder, path.parent.name):
        if found := re.fullmatch(r"features_([\w.-]{1,60})", re.split(r"[\\/]", place)[-1]):
            return found[1]
    return ""


def _get_positive_number(attributes: Mapping[str, Any], name: str) -> float | None:
    """A positive finite number among attributes of any kind, else None."""
    try:
        value = float(attributes[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and 0 < value < 1e9 else None


def _to_text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(value.split())[:200] if isinstance(value, str) else ""
