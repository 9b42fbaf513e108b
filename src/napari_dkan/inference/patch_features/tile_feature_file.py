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
MAX_READ_GAP = 64  # rows between two rows of one read

# Errors of h5py for files that are damaged or of another format.
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
    """The metadata of a feature file; features are read when needed.

    Attributes
    ----------
    centers : ndarray
        (N, 2) float64 centers of the tiles in level-0 px.
    tile_side_px : float
        Side of a tile in level-0 px.
    is_side_stated : bool
        Whether the file states the side; otherwise it is the distance of the tiles.
    tile_px : float or None
        Side of the encoder's input in pixels.
    feature_dim : int
        Numbers in a feature.
    encoder_name : str
        Encoder as named by the file or its folder; "" when unknown.
    magnification : float or None
        Of level 0.
    slide_size : tuple of float or None
        Width and height in level-0 px.
    slide_name : str
        "" when unknown.
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
        """(M, feature_dim) features of rows (M,) in any order.

        Raises
        ------
        SpotsError
            When the file is gone or damaged, or some features are not finite.
        """
        import h5py

        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        features = np.empty((len(rows), self.feature_dim), np.float32)
        breaks = np.flatnonzero(np.diff(sorted_rows) > MAX_READ_GAP) + 1
        parts = np.split(np.arange(len(rows)), breaks) if len(rows) else []
        try:
            with h5py.File(self.path, "r") as file:
                data = file["features"]
                for part in parts:
                    first, last = int(sorted_rows[part[0]]), int(sorted_rows[part[-1]])
                    block = np.asarray(data[first : last + 1], np.float32)
                    features[order[part]] = block[sorted_rows[part] - first]
        except _HDF5_READ_ERRORS as error:
            raise SpotsError(
                f"The features in {self.path.name} could not be read; is it still there and whole?"
            ) from error
        if not np.isfinite(features).all():
            raise SpotsError(f"{self.path.name} holds features that are not numbers; make it anew.")
        return features


def open_feature_file(path: str | Path) -> TileFeatureFile:
    """Open a feature file of TRIDENT or CLAM.

    Raises
    ------
    SpotsError
        When it is damaged, of another format or implausible.
    """
    import h5py

    path = Path(path)
    if not path.exists():
        raise SpotsError(f"There is no file {path}; check the path.")
    if doubt := validate_hdf5(path):
        raise SpotsError(f"{path.name} cannot be read: {doubt}; copy it again, or extract it anew.")
    try:
        with h5py.File(path, "r") as file:
            coords = _get_local_dataset(file, "coords")
            features = _get_local_dataset(file, "features")
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
            attributes = dict(file.attrs) | dict(features.attrs) | dict(coords.attrs)
            folder = _to_text(features.attrs.get("savetodir"))
            corners = np.asarray(coords[:], np.float64)
    except _HDF5_READ_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as HDF5; copy it again, or extract it anew."
        ) from error
    if not np.isfinite(corners).all() or np.abs(corners).max() > MAX_SLIDE_PX:
        raise SpotsError(f"{path.name} has coordinates that lie on no slide.")
    stated_side = _read_tile_side(attributes)
    side = stated_side or _estimate_tile_spacing(corners)
    if side is None or not 1 <= side <= MAX_SLIDE_PX:
        raise SpotsError(f"{path.name} does not say how large its tiles are; extract it anew.")
    width = _get_positive_number(attributes, "level0_width")
    height = _get_positive_number(attributes, "level0_height")
    return TileFeatureFile(
        path=path,
        centers=corners + side / 2,
        tile_side_px=side,
        is_side_stated=stated_side is not None,
        tile_px=_get_positive_number(attributes, "patch_size"),
        feature_dim=int(shape[1]),
        encoder_name=_find_encoder_name(attributes, folder, path),
        magnification=_get_positive_number(attributes, "level0_magnification"),
        slide_size=None if width is None or height is None else (width, height),
        slide_name=_to_text(attributes.get("name")),
    )


def _get_local_dataset(file: Any, name: str) -> Any:
    """Get a dataset that is stored in this file; None where there is none."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    dataset = file[name]
    is_local = isinstance(dataset, h5py.Dataset) and not dataset.is_virtual and not dataset.external
    return dataset if is_local else None


def _read_tile_side(attributes: Mapping[str, Any]) -> float | None:
    """Side of a tile in level-0 px; None where the attributes do not state it."""
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
        downsample: float | None = 1.0
        if _get_positive_number(attributes, "patch_level"):
            value = np.asarray(attributes.get("downsample", 1.0), dtype=object).ravel()[0]
            downsample = _get_positive_number({"downsample": value}, "downsample")
        if downsample is not None:
            return px * downsample * (_get_positive_number(attributes, "custom_downsample") or 1)
    return None


def _estimate_tile_spacing(corners: NDArray[np.float64]) -> float | None:
    """The most frequent distance of successive tiles in a row or a column."""
    steps = []
    for axis in (0, 1):
        order = np.lexsort((corners[:, axis], corners[:, 1 - axis]))
        line, position = corners[order, 1 - axis], corners[order, axis]
        step = np.diff(position)[np.diff(line) == 0]
        steps.append(step[step > 0])
    all_steps = np.concatenate(steps)
    if not len(all_steps):
        return None
    values, counts = np.unique(all_steps, return_counts=True)
    return float(values[counts.argmax()])


def _find_encoder_name(attributes: Mapping[str, Any], folder: str, path: Path) -> str:
    for name in ("encoder", "encoder_name", "patch_encoder", "enc_name", "model_name"):
        if encoder := _to_text(attributes.get(name)):
            return encoder
    for location in (folder, path.parent.name):
        folder_name = re.split(r"[\\/]", location)[-1]
        if match := re.fullmatch(r"features_([\w.-]{1,60})", folder_name):
            return match[1]
    return ""


def _get_positive_number(attributes: Mapping[str, Any], name: str) -> float | None:
    """Get an attribute that is a positive finite number, else None."""
    try:
        value = float(attributes[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and 0 < value < 1e9 else None


def _to_text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(value.split())[:200] if isinstance(value, str) else ""
