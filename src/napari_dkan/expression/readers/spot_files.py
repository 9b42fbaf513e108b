"""Read spot positions from her2st, Space Ranger, plain tables and h5ad."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5
from ...spatial.spots import Spots
from ..array_geometry import ST_DIAMETER_UM, ST_PITCH_UM, VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
from .metadata import find_value, read_scale_factors
from .table_files import numeric_columns, read_table

if TYPE_CHECKING:
    import pandas as pd


_SPACE_RANGER_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col"]
_SPACE_RANGER_COLUMNS += ["pxl_row_in_fullres", "pxl_col_in_fullres"]
# where the pixel position stands, best first; x, y come last because in a her2st file they are
# array coordinates
_PIXEL_COLUMNS = [
    ("pixel_x", "pixel_y"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("x", "y"),
    ("X", "Y"),
]


def read_spots(path: str | Path) -> Spots:
    """Spots of a her2st selection TSV, Space Ranger positions (CSV or Parquet), a table with x
    and y, an h5ad.

    A her2st file (array ``x, y`` beside ``pixel_x, pixel_y``) gives the 200 um array; Space
    Ranger's positions give the Visium array, or Visium HD's bins where the scale factors beside
    them state a bin size, in tissue only; any other table gives centres in level-0 px. An h5ad
    gives ``obsm['spatial']`` with ``obs['array_row'|'array_col']``.

    Raises SpotsError naming the file when it is none of these, is empty, or names a spot twice.
    """
    path = Path(path)
    spots = _read_h5ad_spots(path) if path.suffix == ".h5ad" else _read_spot_table(path)
    if not len(spots):
        raise SpotsError(f"{path} holds no spots.")
    if spots.array_coords is not None:
        cells, counts = np.unique(spots.array_coords, axis=0, return_counts=True)
        if (counts > 1).any():
            x, y = cells[counts > 1][0]
            raise SpotsError(f"{path} places two spots at array position {x}x{y}; keep one.")
    return spots


def _read_spot_table(path: Path) -> Spots:
    if path.name.startswith("tissue_positions"):
        table = read_table(path, header=path.name != "tissue_positions_list.csv")
        if "pxl_col_in_fullres" not in table.columns:
            if table.shape[1] != len(_SPACE_RANGER_COLUMNS):
                raise SpotsError(
                    f"{path} has {table.shape[1]} columns where Space Ranger writes 6; "
                    "use the file from the spatial folder."
                )
            table.columns = _SPACE_RANGER_COLUMNS
    else:
        table = read_table(path)
    table.columns = [str(c).strip() for c in table.columns]
    columns = next((pair for pair in _PIXEL_COLUMNS if set(pair) <= set(table.columns)), None)
    if columns is None:
        raise SpotsError(
            f"{path} has no columns x and y (or pixel_x, pixel_y) with spot centres in pixels; "
            f"its columns are {', '.join(map(str, table.columns[:6]))}."
        )
    for flag in ("selected", "in_tissue"):
        if flag in table.columns:
            table = table[numeric_columns(table, [flag], path)[:, 0] > 0]
    xy = numeric_columns(table, list(columns), path)
    if columns[0] == "pixel_x" and {"x", "y"} <= set(table.columns):
        array = round_array_coords(numeric_columns(table, ["x", "y"], path))
        return Spots(xy, array, names_from_array_coords(array), ST_DIAMETER_UM, ST_PITCH_UM)
    if columns[0] == "pxl_col_in_fullres":
        cells = array_coords_from_table(table, path)
        names = tuple(table["barcode"].astype(str)) if "barcode" in table.columns else ()
        bin_um = read_scale_factors(path.parent).bin_um
        return Spots(xy, cells, names, bin_um or VISIUM_DIAMETER_UM, bin_um or VISIUM_PITCH_UM)
    names = next(
        (tuple(table[c].astype(str)) for c in ("name", "id", "barcode") if c in table.columns), ()
    )
    return Spots(xy, array_coords_from_table(table, path), names)


def array_coords_from_table(table: pd.DataFrame, path: Path) -> NDArray[np.int64] | None:
    for pair in (["array_col", "array_row"], ["array_x", "array_y"]):
        if set(pair) <= set(table.columns):
            return round_array_coords(numeric_columns(table, pair, path))
    return None


def round_array_coords(array: NDArray[np.float64]) -> NDArray[np.int64]:
    """Array coordinates as integers; her2st writes some of them with decimals."""
    return np.rint(array).astype(np.int64)


def names_from_array_coords(array: NDArray[np.int64]) -> tuple[str, ...]:
    """her2st's spot names, ``XxY``."""
    return tuple(f"{x}x{y}" for x, y in array)


def _read_h5ad_spots(path: Path) -> Spots:
    import anndata

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    try:
        if doubt := validate_hdf5(path):
            raise SpotsError(f"{path} is not a readable h5ad file ({doubt}); write it again.")
        data = anndata.read_h5ad(path, backed="r")
    except SpotsError:
        raise
    except Exception as error:  # h5py and anndata raise a dozen kinds for a file that is no h5ad
        raise SpotsError(f"{path} is not a readable h5ad file; write it again.") from error
    try:
        if "spatial" not in data.obsm:
            raise SpotsError(f"{path} has no obsm['spatial'] with spot centres in pixels.")
        xy = np.asarray(data.obsm["spatial"], dtype=np.float64)[:, :2]
        array = array_coords_from_table(data.obs, path)
        names = tuple(map(str, data.obs_names))
        diameter, pitch = (find_value(data.uns, (f"spot_{k}_um",)) for k in ("diameter", "pitch"))
    finally:
        data.file.close()
    return Spots(xy, array, names, diameter, pitch)
