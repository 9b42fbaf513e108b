"""Read text and Parquet tables, and array coordinates from tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...size_limits import validate_gzip_size, validate_parquet_size
from ...spatial.spots import Spots

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path, header: bool = True, index: bool = False) -> pd.DataFrame:
    """Read a TSV or CSV (gzipped or not) or a Parquet table.

    Parameters
    ----------
    path
        A text table has the separator that its first line has; tab comes first.
    header
        The first line has the names of the columns.
    index
        The first column has the names of the rows (in Parquet, where no index is stored).

    Raises
    ------
    SpotsError
        The file is missing, empty, too large or not a table.
    """
    import pandas as pd

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.suffix == ".parquet":
        return _read_parquet(path, index)
    try:
        problem = validate_gzip_size(path)
        if problem:
            raise SpotsError(f"{path} is not read: {problem}; save it as TSV or CSV.")
        return pd.read_csv(
            path,
            sep=_detect_separator(_read_first_line(path)),
            header=0 if header else None,
            index_col=0 if index else None,
            compression=_detect_compression(path),
        )
    except (ValueError, OSError, EOFError, AttributeError, IndexError, TypeError) as error:
        # Parser errors of pandas and bad encodings are ValueErrors, a damaged gzip is an OSError.
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error


def read_header(path: Path) -> list[str]:
    """Read the cells of the first line of a text table; pandas would rename duplicate columns.

    Raises SpotsError if the file is not a table.
    """
    try:
        line = _read_first_line(path)
        return next(csv.reader([line], delimiter=_detect_separator(line)))
    except (ValueError, OSError, EOFError, TypeError, IndexError, csv.Error) as error:
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error


def _read_first_line(path: Path) -> str:
    import pandas as pd

    # Without a separator or quotes pandas returns the whole line, compressed or not.
    table = pd.read_csv(
        path,
        header=None,
        nrows=1,
        sep="\0",
        dtype=str,
        quoting=csv.QUOTE_NONE,
        compression=_detect_compression(path),
    )
    line: str = table.iloc[0, 0]
    return line


def _detect_compression(path: Path) -> Literal["gzip"] | None:
    """Detect gzip by the content, as the file name may be wrong."""
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else None


def _detect_separator(line: str) -> str:
    return "\t" if "\t" in line else ","


def _read_parquet(path: Path, index: bool) -> pd.DataFrame:
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        if problem := validate_parquet_size(path):
            raise SpotsError(f"{path} is not read: {problem}; write it again.")
        table = pd.read_parquet(path)
    except (ArrowException, ValueError, OSError, TypeError, KeyError) as error:
        raise SpotsError(f"{path} is not a readable Parquet table; write it again.") from error
    if index and isinstance(table.index, pd.RangeIndex) and table.shape[1]:
        table = table.set_index(table.columns[0])
    return table


def numeric_columns(table: pd.DataFrame, columns: list[str], path: Path) -> NDArray[np.float64]:
    """Return columns as (N, len(columns)) finite numbers.

    Raises SpotsError with the first column and row that is not a number.
    """
    import pandas as pd

    out = np.empty((len(table), len(columns)))
    for i, column in enumerate(columns):
        out[:, i] = pd.to_numeric(table[column], errors="coerce")
        if not np.isfinite(out[:, i]).all():
            row = int(np.flatnonzero(~np.isfinite(out[:, i]))[0]) + 1
            raise SpotsError(f"{path}: column {column} holds no number in data row {row}; fix it.")
    return out


def array_coords_from_table(table: pd.DataFrame, path: Path) -> NDArray[np.int64] | None:
    """Return array coordinates (N, 2) along x and y, None where a table does not have them."""
    for pair in (["array_col", "array_row"], ["array_x", "array_y"]):
        if set(pair) <= set(table.columns):
            return round_array_coords(numeric_columns(table, pair, path))
    return None


def round_array_coords(array_coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round array coordinates to integers; some in her2st files have decimals."""
    return np.rint(array_coords).astype(np.int64)


def names_from_array_coords(array_coords: NDArray[np.int64]) -> tuple[str, ...]:
    """Return her2st's spot names, ``XxY``."""
    return tuple(f"{x}x{y}" for x, y in array_coords)


def check_unique_array_coords(spots: Spots, path: Path) -> None:
    """Raise SpotsError if two spots have the same array coordinates."""
    if spots.array_coords is None:
        return
    cells, counts = np.unique(spots.array_coords, axis=0, return_counts=True)
    if (counts > 1).any():
        x, y = cells[counts > 1][0]
        raise SpotsError(f"{path} places two spots at array position {x}x{y}; keep one.")
