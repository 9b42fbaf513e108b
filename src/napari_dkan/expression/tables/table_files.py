"""Read text, Excel and Parquet tables, and array coordinates from tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...size_limits import validate_gzip_size, validate_parquet_size
from ...spatial.spots import Spots
from .delimited_text import TextSource, is_grouped_number, read_delimited_text
from .excel_tables import read_excel_text

if TYPE_CHECKING:
    import pandas as pd


# Names of columns that name something: their cells stay text, 001 and 1E1 too.
NAME_COLUMNS = frozenset(
    (
        *("barcode", "barcodes", "cell", "cell_id", "cell_name", "id", "ids", "name", "names"),
        *("spot", "spots", "spot_id", "spot_name", "object id", "object_id", "batch", "slide"),
        *("section", "sections", "section_id", "sample", "samples", "sample_id", "library"),
        *("library_id", "patient", "patients", "patient_id", "index", "unnamed: 0", "cells"),
        *("cell.id", "cell id", "cell name", "cellid", "spot id", "spot.id", "spot name"),
    )
)
_OLD_EXCEL_MAGIC = b"\xd0\xcf\x11\xe0"
_ZIP_MAGIC = b"PK\x03\x04"


def read_table(
    path: Path, header: bool | None = True, index: bool = False, as_text: bool = False
) -> pd.DataFrame:
    """Read a table: text in any usual form (gzipped or not), Excel (.xlsx) or Parquet.

    The separator (tab, comma, semicolon), the encoding, comment lines, an Excel ``sep=`` line,
    delimiters at the ends of lines and decimal commas are found from the content.

    Parameters
    ----------
    path
        The format of a file is that of its content.
    header
        The first row has the names of the columns; None finds out, as names are no numbers.
    index
        The first column has the names of the rows (in Parquet, where no index is stored).
    as_text
        No column is converted to numbers. Else those in `NAME_COLUMNS`, columns without a name,
        and the index are not.

    Returns
    -------
    DataFrame
        ``attrs['notes']`` has sentences about what was skipped or converted.

    Raises
    ------
    SpotsError
        The file is missing, empty, too large or not a table.
    """
    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.suffix == ".parquet":
        return _read_parquet(path, index)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == _OLD_EXCEL_MAGIC:
            raise SpotsError(f"{path} is an old Excel file (.xls); save it as .xlsx or CSV.")
        text = read_excel_text(path) if magic == _ZIP_MAGIC else None
        if text is None and (problem := validate_gzip_size(path)):
            raise SpotsError(f"{path} is not read: {problem}; save it as TSV or CSV.")
        table = read_delimited_text(
            TextSource(path, text), header, None if as_text else NAME_COLUMNS, index
        )
    except (ValueError, OSError, EOFError, AttributeError, IndexError, TypeError) as error:
        # Parser errors of pandas and bad encodings are ValueErrors, a damaged gzip is an OSError.
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error
    except csv.Error as error:
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error
    return _use_first_column_as_index(table) if index else _rename_duplicates(table)


def _use_first_column_as_index(table: pd.DataFrame) -> pd.DataFrame:
    """Use the first column as the index; the second, where the first only counts the rows."""
    if table.shape[1] > 2 and not table.columns[0] and is_row_counter(table.iloc[:, 0]):
        cells = table.iloc[:, 1]
        if not any(map(_is_number, cells.astype(str))):
            table = table.iloc[:, 1:]
    index, notes = table.iloc[:, 0], table.attrs.get("notes", [])
    table = table.iloc[:, 1:].set_axis(index, axis=0)
    table.attrs["notes"] = notes
    return table


def is_row_counter(cells: Iterable[object]) -> bool:
    """Whether cells count from 0 or from 1, as the index that pandas and R write."""
    values = [str(cell) for cell in cells]
    return values[:1] in (["0"], ["1"]) and values == [
        str(i + int(values[0])) for i in range(len(values))
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rename_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Name the second column ``x`` ``x.1``, and so on."""
    import pandas as pd

    names: list[str] = []
    seen: dict[str, int] = {}
    for name in map(str, table.columns):
        names.append(f"{name}.{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    if len(seen) < len(names):
        table.columns = pd.Index(names)
    return table


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
            row = int(np.flatnonzero(~np.isfinite(out[:, i]))[0])
            cell = str(table[column].iloc[row])
            raise SpotsError(
                f"{path}: column {column} holds no number in data row {row + 1}"
                + (
                    f": {cell} may mean {cell.replace(',', '')} or {cell.replace(',', '.')}; "
                    "write it without the comma."
                    if is_grouped_number(cell)
                    else "; fix it."
                )
            )
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
        raise SpotsError(
            f"{path} places two spots at array position {x}x{y}; keep one, or if they are of two "
            "sections, name the section of each spot in a column library_id."
        )
