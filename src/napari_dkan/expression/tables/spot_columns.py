"""Names that Seurat and QuPath give to the columns of spot tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import MissingPixelSizeError, SpotsError
from ...spatial.spots import Spots, median_spot_distance
from ..readers.metadata import SCALE_FACTORS_NAME
from .table_files import is_row_counter, numeric_columns

if TYPE_CHECKING:
    import pandas as pd


_SEURAT_NAMES = {
    "imagerow": "pxl_row_in_fullres",
    "imagecol": "pxl_col_in_fullres",
    "row": "array_row",
    "col": "array_col",
    "tissue": "in_tissue",
}
# The micro sign, the Greek letter, what a wrong encoding makes of them, and plain letters.
_QUPATH_CENTROID = re.compile(r"centroid ([xy]) (px|\S{0,2}m)", re.IGNORECASE)
# In lower case without punctuation, best first.
_NAME_COLUMNS: tuple[str, ...] = ("name", "id", "barcode", "barcodes", "cell", "spot", "spotid")
_NAME_COLUMNS += ("objectid", "cellid", "cellname", "spotname", "spots", "cells")
_PIXEL_NAMES = {  # in lower case without punctuation
    "pxlcolinfullres": "pxl_col_in_fullres",
    "pxlrowinfullres": "pxl_row_in_fullres",
    "pixelx": "pixel_x",
    "pixely": "pixel_y",
    "xpixel": "x_px",
    "ypixel": "y_px",
    "xpx": "x_px",
    "ypx": "y_px",
}
# Of a Visium spot, or of a bin of Visium HD.
_BARCODE = re.compile(r"(?<![A-Za-z])[ACGT]{14,18}-\d+|s_\d{3}um_\d{5}_\d{5}-\d+")
_MIN_SEURAT_DISTANCE_PX = 15.0  # Visium spots are 100 um apart: 100 px or more at level 0


def standardize_spot_columns(
    table: pd.DataFrame, path: Path, mpp: float | None = None
) -> pd.DataFrame:
    """Rename columns of Seurat, QuPath and our own tables as this package calls them.

    Parameters
    ----------
    table
        With stripped names of columns.
    path
        The file, for errors.
    mpp
        um per px of the image, for QuPath's centroids in micrometres.

    Raises
    ------
    SpotsError
        Positions are in micrometres and the pixel size is unknown, or they are those of a
        downsampled image.
    """
    plain = {c: _plain(c) for c in table.columns}
    if len(set(plain.values())) == len(plain):
        table = table.rename(columns={c: _PIXEL_NAMES.get(p, c) for c, p in plain.items()})
    names = set(table.columns)
    if {"imagerow", "imagecol"} <= names and "pxl_row_in_fullres" not in names:
        table = table.rename(columns=_SEURAT_NAMES)
        _check_seurat_resolution(table, path)
        names = set(table.columns)
    centroids = {m[1].lower() + m[2].lower(): m[0] for m in map(_match_centroid, names) if m}
    if not centroids or names & {"x", "pixel_x", "pxl_col_in_fullres", "X"}:
        return table
    if {"xpx", "ypx"} <= set(centroids):
        return table.rename(columns={centroids["xpx"]: "x", centroids["ypx"]: "y"})
    columns = [next((c for k, c in centroids.items() if k[0] == axis), None) for axis in "xy"]
    if None in columns:
        return table
    found = [str(c) for c in columns]
    xy = numeric_columns(table, found, path) / require_mpp(mpp, path, found[0])
    notes = [*table.attrs.get("notes", ()), describe_conversion(found[0], mpp)]
    table = table.drop(columns=found).assign(x=xy[:, 0], y=xy[:, 1])
    table.attrs["notes"] = notes
    return table


def find_micrometre_columns(names: Iterable[object]) -> tuple[str, str] | None:
    """Return the columns with QuPath's centroids in micrometres, x first; None without both."""
    found = {m[1].lower(): m[0] for m in map(_match_centroid, names) if m and m[2] != "px"}
    return (found["x"], found["y"]) if len(found) == 2 else None


def require_mpp(mpp: float | None, path: Path, column: str) -> float:
    """Return the um per px that converts a column; raises SpotsError if it is unknown."""
    if mpp is None:
        raise MissingPixelSizeError(
            f"{path} has positions in micrometres ({column}), and the slide states no pixel size "
            "to convert them."
        )
    return mpp


def describe_conversion(column: str, mpp: float | None) -> str:
    """Describe how positions in micrometres were converted, for the account of a file."""
    return f"positions in micrometres ({column}) were divided by {mpp:.4g} um/px"


def names_from_spot_table(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the names of spots: of a column of names, or of a first column without a name."""
    by_name = {_plain(c): c for c in reversed(table.columns)}
    column = next((by_name[c] for c in _NAME_COLUMNS if c in by_name), None)
    if column is not None:
        return tuple(table[column].astype(str))
    if len(table.columns) and str(table.columns[0]).lower() in ("", "index", "unnamed: 0"):
        cells = table.iloc[:, 0].astype(str)
        if cells.is_unique and not is_row_counter(cells):
            return tuple(cells)
    return ()


def is_seurat5_table(table: pd.DataFrame) -> bool:
    """Whether a table has Seurat 5's columns ``x, y, cell`` with barcodes of Visium.

    Its ``VisiumV2`` images hold the row of the image as x in some versions, and as y in others.
    """
    if not {"x", "y", "cell"} <= set(table.columns) or {"pixel_x", "pxl_col_in_fullres"} & set(
        table.columns
    ):
        return False
    return len(table) > 0 and all(map(_BARCODE.search, table["cell"].astype(str)))


def is_row_first_in_seurat5(table: pd.DataFrame, path: Path, known: Spots) -> bool | None:
    """Return whether x is the row of the image, by the known positions of the same barcodes.

    None where they are those of other spots, or of another resolution.
    """
    position_of = dict(zip(map(_bare_barcode, known.names), known.xy, strict=False))
    xy = numeric_columns(table, ["x", "y"], path)
    barcodes = [_bare_barcode(str(cell)) for cell in table["cell"]]
    rows = [i for i, barcode in enumerate(barcodes) if barcode in position_of]
    if 2 * len(rows) < len(xy):
        return None
    there = np.array([position_of[barcodes[i]] for i in rows])
    for is_row_first, found in ((False, xy[rows]), (True, xy[rows][:, ::-1])):
        if np.allclose(found, there, rtol=0, atol=1.0):
            return is_row_first
    return None


def _bare_barcode(name: str) -> str:
    """Return a barcode without what Seurat adds before it and after it."""
    match = _BARCODE.search(name)
    return name if match is None else match[0]


def _plain(name: object) -> str:
    return re.sub("[^a-z0-9]", "", str(name).lower())


def _match_centroid(name: object) -> re.Match[str] | None:
    return _QUPATH_CENTROID.fullmatch(str(name))


def _check_seurat_resolution(table: pd.DataFrame, path: Path) -> None:
    """Raise SpotsError for the positions that Seurat scales to its downsampled image."""
    xy = numeric_columns(table, ["pxl_col_in_fullres", "pxl_row_in_fullres"], path)
    has_bins = (path.parent / SCALE_FACTORS_NAME).is_file()
    if len(xy) < 2 or has_bins or not (xy % 1).any():
        return
    distance = median_spot_distance(xy)
    if distance < _MIN_SEURAT_DISTANCE_PX:
        raise SpotsError(
            f"{path} has spots {distance:.3g} px apart in imagerow and imagecol, as in Seurat's "
            "downsampled image; write GetTissueCoordinates(scale = NULL), or call the columns "
            "pxl_row_in_fullres and pxl_col_in_fullres if they are level-0 pixels."
        )
