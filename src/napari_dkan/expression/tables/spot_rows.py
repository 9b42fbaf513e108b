"""Which rows of a table of spots are in tissue, and which columns hold their positions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...spatial.spots import Spots
from ..readers.read_account import add_left_out
from .spot_columns import describe_conversion, find_micrometre_columns, require_mpp

if TYPE_CHECKING:
    import pandas as pd


NOT_IN_TISSUE = "not in tissue"  # reason in accounts
_TISSUE_COLUMNS = ("intissue", "isintissue", "undertissue", "tissue")
_YES = {"1", "1.0", "true", "t", "yes", "y", "in"}
_NO = {"0", "0.0", "false", "f", "no", "n", "out"}
# Columns with pixel positions (x, y), best first, in lower case without punctuation.
_POSITION_COLUMNS = (
    ("pxlcolinfullres", "pxlrowinfullres"),
    ("pixelx", "pixely"),
    ("imagecol", "imagerow"),
    ("xpixel", "ypixel"),
    ("x", "y"),
    ("xcentroid", "ycentroid"),
    ("xcoord", "ycoord"),
    ("spatial1", "spatial2"),
    ("col", "row"),
)


def in_tissue_mask(table: pd.DataFrame, path: Path) -> NDArray[np.bool_]:
    """Return which rows are in tissue: all, where no column ``in_tissue`` says otherwise.

    Seurat's column ``tissue`` counts where it holds 0 and 1 only.

    Raises
    ------
    SpotsError
        A value says neither yes nor no.
    """
    columns = {str(c).lower().replace("_", "").replace(".", ""): c for c in table.columns}
    column = next((columns[name] for name in _TISSUE_COLUMNS if name in columns), None)
    if column is None or table[column].isna().all():
        return np.ones(len(table), dtype=bool)
    values = [str(value).strip().lower() for value in table[column]]
    if column == columns.get("tissue") and not {v.removesuffix(".0") for v in values} <= {"0", "1"}:
        return np.ones(len(table), dtype=bool)  # names of organs
    unknown = next((v for v in values if v not in _YES and v not in _NO), None)
    if unknown is not None:
        raise SpotsError(
            f"{path}: {column} holds {unknown or 'an empty cell'} for a spot; write 1 for a spot "
            "in tissue and 0 for another."
        )
    return np.array([value in _YES for value in values], dtype=bool)


def drop_off_tissue(spots: Spots, is_in_tissue: NDArray[np.bool_]) -> Spots:
    """Return the spots in tissue; the account and `Spots.off_tissue` name the others."""
    if is_in_tissue.all():
        return spots
    off = np.flatnonzero(~is_in_tissue)
    names = tuple(spots.names[i] for i in off) if spots.names else ()
    return replace(
        spots.take(is_in_tissue),
        left_out=add_left_out(spots.left_out, NOT_IN_TISSUE, len(off)),
        off_tissue=(*spots.off_tissue, *names),
    )


def positions_of_matrix(
    positions: Any, path: Path, what: str, mpp: float | None = None
) -> tuple[NDArray[np.float64], str]:
    """Return x and y (N, 2) of an array, or of a DataFrame whose columns name them.

    Parameters
    ----------
    mpp
        um per px of the image, for columns in micrometres.

    Returns
    -------
    The positions in px, and a sentence about their conversion, "" for none.

    Raises
    ------
    SpotsError
        There are no numbers, or the names of the columns do not say which is x.
    """
    columns = [str(c) for c in getattr(positions, "columns", ())]
    try:
        if not columns or columns[:2] == ["0", "1"]:
            return np.asarray(positions, dtype=np.float64)[:, :2], ""
        if (in_um := find_micrometre_columns(columns)) is not None:
            um = positions.iloc[:, [columns.index(c) for c in in_um]]
            mpp = require_mpp(mpp, path, in_um[0])
            return np.asarray(um, dtype=np.float64) / mpp, describe_conversion(in_um[0], mpp)
        found = list(_position_columns(columns, path, what))
        return np.asarray(positions.iloc[:, found], dtype=np.float64), ""
    except (ValueError, TypeError, IndexError) as error:
        raise SpotsError(f"{path}: {what} holds no numbers; give x and y.") from error


def _position_columns(columns: Sequence[str], path: Path, what: str) -> tuple[int, int]:
    plain = [re.sub("[^a-z0-9]", "", c.lower()) for c in columns]
    for x, y in _POSITION_COLUMNS:
        if plain.count(x) == 1 and plain.count(y) == 1:
            return plain.index(x), plain.index(y)
    raise SpotsError(
        f"{path}: the columns of {what} are {', '.join(columns[:4])}, which do not say which is x; "
        "call them x and y."
    )
