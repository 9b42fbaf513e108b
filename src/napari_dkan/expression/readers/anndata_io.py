"""Read h5ad files, and extract counts and spots from any AnnData."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5
from ...spatial.spots import Spots
from ..array_geometry import (
    MIN_HEXAGONAL_SPOTS,
    VISIUM_DIAMETER_UM,
    VISIUM_PITCH_UM,
    array_coords_from_lattice,
    is_hexagonal,
)
from ..counts import CountMatrix, counts_from_matrix, is_integer_valued
from ..gene_names import features_from_var
from ..tables.spot_rows import drop_off_tissue, in_tissue_mask, positions_of_matrix
from ..tables.table_files import array_coords_from_table, check_unique_array_coords
from .metadata import MPP_KEYS, find_value

if TYPE_CHECKING:
    from anndata import AnnData


PREDICTION_KEY = "napari_dkan"  # in ``uns`` of what `napari-dkan predict` and `batch` write
PREDICTION_REASON = "it is a prediction that napari-dkan saved, and not measured"


def is_prediction_file(path: Path) -> bool:
    """Whether an h5ad file, or the table of a Zarr store, holds predictions of this package."""
    import h5py

    if path.is_dir():
        return (path / "uns" / PREDICTION_KEY).is_dir()
    try:
        if validate_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return f"uns/{PREDICTION_KEY}" in file
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return False  # a damaged file; reading it reports what is wrong


def read_h5ad_file(path: Path, *, backed: bool = False) -> AnnData:
    """Read an h5ad file, or open it without reading its matrices if ``backed``.

    Raises
    ------
    SpotsError
        The file is missing, damaged or not an h5ad file.
    """
    import anndata

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    try:
        problem = validate_hdf5(path)
        if not problem:
            return anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:  # h5py and anndata raise a dozen types for a damaged file
        raise SpotsError(f"{path} is not a readable h5ad file; write it again.") from error
    raise SpotsError(f"{path} is not a readable h5ad file ({problem}); write it again.")


def counts_from_anndata(data: AnnData, path: Path) -> CountMatrix:
    """Extract raw counts, with gene symbols as names where there are any.

    Uses ``layers['counts']``, else the first of ``raw`` and ``X`` with whole numbers.

    Raises
    ------
    SpotsError
        None of them has counts, or they are predictions.
    """
    if PREDICTION_KEY in data.uns:
        raise SpotsError(f"{path} has no counts: {PREDICTION_REASON}; give the measured section.")
    spots = list(map(str, data.obs_names))
    if "counts" in data.layers:
        return counts_from_matrix(data.layers["counts"], spots, features_from_var(data.var), path)
    raw = [] if data.raw is None else [(data.raw.X, _complete_var(data.raw.var, data.var))]
    for matrix, var in [*raw, (data.X, data.var)]:
        if matrix is not None and _is_raw_counts(matrix):
            return counts_from_matrix(matrix, spots, features_from_var(var), path)
    raise SpotsError(
        f"{path} holds no raw counts in X{' or raw' if raw else ''}; "
        "put the raw counts into layers['counts']."
    )


def spots_from_anndata(
    data: AnnData, path: Path, mpp: float | None = None
) -> tuple[Spots, dict[str, str]]:
    """Extract the spots in tissue from ``obsm['spatial']``, and notes; see `infer_array`.

    For `mpp` see `positions_from_anndata`.

    Raises
    ------
    SpotsError
        There are no valid positions.
    """
    return infer_array(positions_from_anndata(data, path, mpp), path)


def positions_from_anndata(data: AnnData, path: Path, mpp: float | None = None) -> Spots:
    """Extract the spots in tissue from ``obsm['spatial']``; its columns may be named.

    Parameters
    ----------
    mpp
        um per px of the image, for columns in micrometres; default that in ``uns``.

    Raises
    ------
    SpotsError
        There are no valid positions.
    """
    if "spatial" not in data.obsm:
        found = ", ".join(map(str, data.obsm)) or "nothing"
        raise SpotsError(
            f"{path} has no obsm['spatial'] with spot centres in pixels; its obsm holds {found}."
        )
    is_in_tissue = in_tissue_mask(data.obs, path)
    mpp = mpp or find_value(data.uns, MPP_KEYS)
    xy, note = positions_of_matrix(data.obsm["spatial"], path, "obsm['spatial']", mpp)
    if xy.shape != (data.n_obs, 2) or not np.isfinite(xy[is_in_tissue]).all():
        raise SpotsError(f"{path}: obsm['spatial'] must hold a finite x and y for every spot.")
    if data.n_obs and not is_in_tissue.any():
        raise SpotsError(f"{path} holds no spots in tissue: obs['in_tissue'] is 0 for all.")
    diameter, pitch = (find_value(data.uns, (f"spot_{key}_um",)) for key in ("diameter", "pitch"))
    array_coords = array_coords_from_table(data.obs, path)
    names = tuple(map(str, data.obs_names))
    xy = np.where(is_in_tissue[:, None], xy, 0.0)
    spots = drop_off_tissue(Spots(xy, array_coords, names, diameter, pitch), is_in_tissue)
    return replace(spots, notes=(*spots.notes, note)) if note else spots


def infer_array(spots: Spots, path: Path) -> tuple[Spots, dict[str, str]]:
    """Add array coordinates and pitch to spots where they can be derived, with notes for ``uns``.

    Array coordinates are derived from positions on a lattice. A hexagonal array of unknown pitch
    is regarded as Visium.

    Raises
    ------
    SpotsError
        Two spots have the same array coordinates.
    """
    notes = {}
    if spots.array_coords is None:
        spots = replace(spots, array_coords=array_coords_from_lattice(spots.xy))
        if spots.array_coords is not None:
            notes["array_note"] = "array coordinates were derived from the positions"
    if spots.array_coords is None:
        return spots, notes
    check_unique_array_coords(spots, path)
    if spots.pitch_um is None and is_hexagonal(spots.array_coords, MIN_HEXAGONAL_SPOTS):
        diameter = spots.diameter_um or VISIUM_DIAMETER_UM
        spots = replace(spots, pitch_um=VISIUM_PITCH_UM, diameter_um=diameter)
    return spots, notes


def check_sparse_indices(data: AnnData) -> None:
    """Raise ValueError if the indices of a sparse matrix are out of range.

    scipy does not check them when it selects rows, and would crash.
    """
    raw = [] if data.raw is None else [data.raw.X]
    for matrix in [data.X, *data.layers.values(), *raw]:
        if hasattr(matrix, "check_format"):
            matrix.check_format()


def constant_obs_value(data: AnnData, column: str) -> str:
    """Return the only value of a column of ``obs``, "" if there is none or several."""
    values = set(map(str, data.obs[column])) if column in data.obs else set()
    return values.pop() if len(values) == 1 else ""


def _is_raw_counts(matrix: Any) -> bool:
    values = np.asarray(matrix.data if hasattr(matrix, "tocsr") else matrix)
    if values.dtype.kind not in "buif":
        return False
    return values.dtype.kind != "f" or not np.isfinite(values).all() or is_integer_valued(values)


def _complete_var(raw: Any, var: Any) -> Any:
    """Add to the ``var`` of ``raw`` the feature types that only the other one states."""
    columns = [c for c in ("feature_types", "feature_type", "genome") if c in var.columns]
    columns = [c for c in columns if c not in raw.columns]
    if not columns:
        return raw
    if raw.index.equals(var.index):
        return raw.assign(**{c: var[c].to_numpy() for c in columns})
    if not var.index.is_unique or not raw.index.is_unique:
        return raw
    return raw.join(var[columns].astype(object))
