"""Read spot positions from her2st, Space Ranger, plain tables and h5ad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import SpotsError
from ...spatial.spots import Spots
from ..array_geometry import ST_DIAMETER_UM, ST_PITCH_UM, VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
from ..readers.anndata_io import positions_from_anndata, read_h5ad_file
from ..readers.library_choice import list_libraries, select_library, select_table_library
from ..readers.metadata import read_scale_factors_beside
from ..readers.prefixed_files import find_only_positions
from ..readers.read_account import add_left_out
from .spot_columns import (
    is_row_first_in_seurat5,
    is_seurat5_table,
    names_from_spot_table,
    standardize_spot_columns,
)
from .spot_rows import NOT_IN_TISSUE, in_tissue_mask
from .table_files import (
    array_coords_from_table,
    check_unique_array_coords,
    names_from_array_coords,
    numeric_columns,
    read_table,
    round_array_coords,
)

if TYPE_CHECKING:
    import pandas as pd


_SPACE_RANGER_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col"]
_SPACE_RANGER_COLUMNS += ["pxl_row_in_fullres", "pxl_col_in_fullres"]
# Columns with pixel positions, best first; x and y are last, since in a her2st file they are array
# coordinates.
_PIXEL_COLUMNS = [
    ("pixel_x", "pixel_y"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("x_px", "y_px"),
    ("x", "y"),
    ("X", "Y"),
]


def read_spots(path: str | Path, mpp: float | None = None, library: str | None = None) -> Spots:
    """Read spot positions from a file.

    - her2st selection TSV (array ``x, y`` and ``pixel_x, pixel_y``): the 200 um array.
    - Space Ranger positions (CSV or Parquet): spots in tissue of the Visium array, or Visium HD's
      bins where the scale factors in the same folder state a bin size.
    - Seurat's coordinates (``imagerow``, ``imagecol``; those of Seurat 5, ``x, y, cell``, where
      Space Ranger's positions beside them say which is x) and QuPath's measurements
      (``Centroid X``).
    - Any other table with x and y: centres in level-0 px.
    - h5ad: ``obsm['spatial']`` with ``obs['array_row'|'array_col']``.

    Parameters
    ----------
    mpp
        um per px of the image, for positions in micrometres.
    library
        Name of the section, where the file holds several.

    Raises
    ------
    SpotsError
        The file is none of these, is empty, holds several sections and none is named, or has two
        spots at one array position.
    """
    path = Path(path)
    if path.suffix == ".h5ad":
        spots = _read_h5ad_spots(path, library, mpp)
    else:
        spots = _read_spot_table(path, mpp, library)
    if not len(spots):
        raise SpotsError(f"{path} holds no spots.")
    check_unique_array_coords(spots, path)
    return spots


def _has_space_ranger_rows(table: pd.DataFrame) -> bool:
    """Whether a table without header has the columns of Space Ranger: barcode, 0 or 1, ..."""
    return (
        table.shape[1] == len(_SPACE_RANGER_COLUMNS)
        and list(table.columns) == list(range(table.shape[1]))
        and set(table[1]) <= {0, 1}
    )


def list_table_libraries(path: Path) -> tuple[str, ...]:
    """List the sections that a table of spots holds; () where it does not name any."""
    return list_libraries(_name_rows(_read_named_table(path)), {})


def _read_named_table(path: Path) -> pd.DataFrame:
    """Read a table with names of columns, those of Space Ranger where it has no header."""
    import pandas as pd

    table = read_table(path, header=None)
    if _has_space_ranger_rows(table):
        table.columns = pd.Index(_SPACE_RANGER_COLUMNS)
    elif "tissue_positions" in path.name and isinstance(table.columns[0], (int, np.integer)):
        raise SpotsError(
            f"{path} has {table.shape[1]} columns where Space Ranger writes 6; "
            "use the file from the spatial folder."
        )
    elif isinstance(table.columns[0], (int, np.integer)):
        table = read_table(path)  # a number among the names of its columns
    table.columns = pd.Index([str(c).strip() for c in table.columns])
    return table


def _name_rows(table: pd.DataFrame) -> pd.DataFrame:
    names = names_from_spot_table(table)
    return table.set_axis(list(names), axis=0) if names else table


def _read_spot_table(path: Path, mpp: float | None = None, library: str | None = None) -> Spots:
    table = select_table_library(_name_rows(_read_named_table(path)), library, path)
    table = standardize_spot_columns(table, path, mpp)
    if is_seurat5_table(table):
        table = _order_seurat5_columns(table, path)
    columns = next((pair for pair in _PIXEL_COLUMNS if set(pair) <= set(table.columns)), None)
    if columns is None:
        raise SpotsError(
            f"{path} has no columns x and y (or pixel_x, pixel_y) with spot centres in pixels; "
            f"its columns are {', '.join(map(str, table.columns[:6]))}."
        )
    left_out: tuple[tuple[str, int], ...] = ()
    if "selected" in table.columns:
        is_selected = numeric_columns(table, ["selected"], path)[:, 0] > 0
        left_out = add_left_out(left_out, "not selected", int((~is_selected).sum()))
        table = table[is_selected]
    is_in_tissue = in_tissue_mask(table, path)
    off_tissue = names_from_spot_table(table[~is_in_tissue])
    left_out = add_left_out(left_out, NOT_IN_TISSUE, int((~is_in_tissue).sum()))
    spots = _spots_of_table(table[is_in_tissue], columns, path)
    notes = tuple(table.attrs.get("notes", ()))
    return replace(spots, left_out=left_out, off_tissue=off_tissue, notes=notes)


def _order_seurat5_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table of Seurat 5 with x along the image, if Space Ranger's positions decide it.

    Raises
    ------
    SpotsError
        There are none beside the file, or they are of other spots.
    """
    folders = (path.parent, path.parent / "spatial", path.parent.parent / "spatial")
    files = (find_only_positions(folder) for folder in folders)
    positions = next((p for p in files if p is not None and p != path), None)
    is_row_first = None
    if positions is not None:
        is_row_first = is_row_first_in_seurat5(table, path, _read_spot_table(positions))
    if positions is None or is_row_first is None:
        found = "" if positions is None else f", and {positions} has no such positions"
        raise SpotsError(
            f"{path} has the columns x, y and cell with barcodes of 10x, as Seurat 5 writes them; "
            f"in some of its versions x is the row of the image{found}. Call the two columns "
            "imagerow and imagecol, or put Space Ranger's tissue_positions of the sample beside it."
        )
    note = f"{path.name}: x is {'the row' if is_row_first else 'along the width'} of the image"
    table = table.rename(columns={"x": "y", "y": "x"}) if is_row_first else table
    table.attrs["notes"] = [*table.attrs.get("notes", ()), f"{note}, as in {positions.name}"]
    return table


def _spots_of_table(table: pd.DataFrame, columns: tuple[str, str], path: Path) -> Spots:
    """Make spots of all rows; `columns` have the positions in px."""
    xy = numeric_columns(table, list(columns), path)
    if columns[0] == "pixel_x" and {"x", "y"} <= set(table.columns):
        array_coords = round_array_coords(numeric_columns(table, ["x", "y"], path))
        names = names_from_array_coords(array_coords)
        return Spots(xy, array_coords, names, ST_DIAMETER_UM, ST_PITCH_UM)
    names = names_from_spot_table(table)
    visium_coords = array_coords_from_table(table, path)
    if columns[0] != "pxl_col_in_fullres":
        return Spots(xy, visium_coords, names)
    bin_um = read_scale_factors_beside(path).bin_um
    return Spots(xy, visium_coords, names, bin_um or VISIUM_DIAMETER_UM, bin_um or VISIUM_PITCH_UM)


def _read_h5ad_spots(path: Path, library: str | None, mpp: float | None) -> Spots:
    import anndata

    data = read_h5ad_file(path, backed=True)
    try:  # all but the matrices
        obsm = {key: data.obsm[key] for key in ("spatial",) if key in data.obsm}
        data_of_spots = anndata.AnnData(obs=data.obs, obsm=obsm, uns=dict(data.uns))
    finally:
        data.file.close()
    return positions_from_anndata(select_library(data_of_spots, library, path)[0], path, mpp)
