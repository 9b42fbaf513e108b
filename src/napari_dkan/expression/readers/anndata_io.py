"""Extract raw counts, spots and array coordinates from any AnnData."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5
from ...spatial.spots import Spots
from ..array_geometry import VISIUM_DIAMETER_UM, VISIUM_PITCH_UM, array_coords_from_lattice
from ..counts import CountMatrix, counts_from_matrix, is_integer_valued
from .metadata import find_value
from .spot_files import array_coords_from_table

if TYPE_CHECKING:
    from anndata import AnnData


_SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "feature_name", "gene_name", "symbol", "SYMBOL")
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl", "ensembl_id", "feature_id")


def read_h5ad_file(path: Path) -> AnnData:
    """Raises SpotsError when the file is missing, damaged or no h5ad."""
    import anndata

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    try:
        doubt = validate_hdf5(path)
        if not doubt:
            return anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise a dozen kinds for a damaged file
        raise SpotsError(f"{path} is not a readable h5ad file; write it again.") from error
    raise SpotsError(f"{path} is not a readable h5ad file ({doubt}); write it again.")


def counts_from_anndata(data: AnnData, path: Path) -> CountMatrix:
    """Raw counts, under gene symbols where it has any.

    From ``layers['counts']``; without that from ``raw`` or ``X``, the first with whole numbers.

    Raises SpotsError when none of them holds counts.
    """
    spots = list(map(str, data.obs_names))
    if "counts" in data.layers:
        genes, ids = _gene_symbols_and_ids(data.var)
        return counts_from_matrix(data.layers["counts"], spots, genes, path, ids)
    places = [] if data.raw is None else [(data.raw.X, data.raw.var)]
    for matrix, var in [*places, (data.X, data.var)]:
        if matrix is not None and _is_raw_counts(matrix):
            genes, ids = _gene_symbols_and_ids(var)
            return counts_from_matrix(matrix, spots, genes, path, ids)
    raise SpotsError(
        f"{path} holds no raw counts in X{' or raw' if places else ''}; "
        "put the raw counts into layers['counts']."
    )


def spots_from_anndata(data: AnnData, path: Path) -> tuple[Spots, dict[str, str]]:
    """Spots from ``obsm['spatial']``, and notes for ``uns``.

    Array coordinates that ``obs`` does not give are derived where the positions lie on a
    lattice. A hexagonal array whose pitch is not stated is taken for Visium's.

    Raises SpotsError when there are no positions.
    """
    if "spatial" not in data.obsm:
        raise SpotsError(f"{path} has no obsm['spatial'] with spot centres in pixels.")
    try:
        xy = np.asarray(data.obsm["spatial"], dtype=np.float64)[:, :2]
    except (ValueError, TypeError, IndexError) as error:
        raise SpotsError(f"{path}: obsm['spatial'] holds no numbers; give x and y.") from error
    if xy.shape != (data.n_obs, 2) or not np.isfinite(xy).all():
        raise SpotsError(f"{path}: obsm['spatial'] must hold a finite x and y for every spot.")
    diameter, pitch = (find_value(data.uns, (f"spot_{key}_um",)) for key in ("diameter", "pitch"))
    names = tuple(map(str, data.obs_names))
    return infer_array(
        Spots(xy, array_coords_from_table(data.obs, path), names, diameter, pitch), path
    )


def infer_array(spots: Spots, path: Path) -> tuple[Spots, dict[str, str]]:
    """The spots with array coordinates and pitch where they can be told, and notes on that."""
    notes = {}
    if spots.array_coords is None:
        spots = replace(spots, array_coords=array_coords_from_lattice(spots.xy))
        if spots.array_coords is not None:
            notes["array_note"] = "array coordinates were derived from the positions"
    if spots.array_coords is None:
        return spots, notes
    cells, times = np.unique(spots.array_coords, axis=0, return_counts=True)
    if (times > 1).any():
        x, y = cells[times > 1][0]
        raise SpotsError(f"{path} places two spots at array position {x}x{y}; keep one.")
    parity = spots.array_coords.sum(axis=1) % 2
    if spots.pitch_um is None and len(spots) > 20 and (parity == parity[0]).all():
        diameter = spots.diameter_um or VISIUM_DIAMETER_UM
        spots = replace(spots, pitch_um=VISIUM_PITCH_UM, diameter_um=diameter)
    return spots, notes


def check_sparse_indices(data: AnnData) -> None:
    """ValueError where the indices of a sparse matrix are damaged.

    scipy trusts them when it takes rows: out of range, they end the process.
    """
    raw = [] if data.raw is None else [data.raw.X]
    for matrix in [data.X, *data.layers.values(), *raw]:
        if hasattr(matrix, "check_format"):
            matrix.check_format()


def constant_obs_value(data: AnnData, column: str) -> str:
    """The one value of a column of ``obs``, "" when there is none or there are several."""
    values = set(map(str, data.obs[column])) if column in data.obs else set()
    return values.pop() if len(values) == 1 else ""


def _is_raw_counts(matrix: Any) -> bool:
    values = np.asarray(matrix.data if hasattr(matrix, "tocsr") else matrix)
    if values.dtype.kind not in "buif":
        return False
    return values.dtype.kind != "f" or not np.isfinite(values).all() or is_integer_valued(values)


def _gene_symbols_and_ids(var: Any) -> tuple[list[str], list[str]]:
    """Symbols and Ensembl ids; the index may hold either."""
    index = [str(v) for v in var.index]
    column = next((c for c in _SYMBOL_COLUMNS if c in var.columns), None)
    if column is not None and sum(v.startswith("ENS") for v in index) > len(index) / 2:
        named = zip(map(str, var[column]), index, strict=True)
        return [symbol if symbol not in ("", "nan") else i for symbol, i in named], index
    ids = next((c for c in _ID_COLUMNS if c in var.columns), None)
    return index, [] if ids is None else [str(v) for v in var[ids]]
