"""Tables in text or Parquet files, with errors that name the file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...size_limits import validate_gzip_size, validate_parquet_size

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path, header: bool = True, index: bool = False) -> pd.DataFrame:
    """A TSV or CSV (gzipped or not) with its separator taken from the first line, or Parquet.

    index : the first column names the rows (in Parquet, where no index was stored).

    Raises SpotsError when the file is missing, empty or not a table.
    """
    import pandas as pd

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.suffix == ".parquet":
        return _read_parquet(path, index)
    try:
        doubt = validate_gzip_size(path)
        if doubt:
            raise SpotsError(f"{path} is not read: {doubt}; save it as TSV or CSV.")
        return pd.read_csv(
            path,
            sep=_detect_separator(_read_first_line(path)),
            header=0 if header else None,
            index_col=0 if index else None,
            compression=_detect_compression(path),
        )
    except (ValueError, OSError, EOFError, AttributeError, IndexError, TypeError) as error:
        # pandas' parser errors and bad encodings are ValueErrors; a broken gzip is an OSError
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error


def read_header(path: Path) -> list[str]:
    """The cells of a text table's first line, as they stand: pandas renames double columns.

    Raises SpotsError when the file is not a table.
    """
    try:
        line = _read_first_line(path)
        return next(csv.reader([line], delimiter=_detect_separator(line)))
    except (ValueError, OSError, EOFError, TypeError, IndexError, csv.Error) as error:
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error


def _read_first_line(path: Path) -> str:
    import pandas as pd

    # without any separator or quote, pandas hands over the line, zipped or not
    one = pd.read_csv(
        path, header=None, nrows=1, sep="\0", dtype=str, quoting=csv.QUOTE_NONE,
        compression=_detect_compression(path),
    )  # fmt: skip
    return one.iloc[0, 0]


def _detect_compression(path: Path) -> Literal["gzip"] | None:
    """By the content: a name may promise what is not in the file."""
    with path.open("rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else None


def _detect_separator(line: str) -> str:
    return "\t" if "\t" in line else ","


def _read_parquet(path: Path, index: bool) -> pd.DataFrame:
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        if doubt := validate_parquet_size(path):
            raise SpotsError(f"{path} is not read: {doubt}; write it again.")
        table = pd.read_parquet(path)
    except (ArrowException, ValueError, OSError, TypeError, KeyError) as error:
        raise SpotsError(f"{path} is not a readable Parquet table; write it again.") from error
    if index and isinstance(table.index, pd.RangeIndex) and table.shape[1]:
        table = table.set_index(table.columns[0])
    return table


def numeric_columns(table: pd.DataFrame, columns: list[str], path: Path) -> NDArray[np.float64]:
    """The named columns as (N, len(columns)) finite numbers.

    Raises SpotsError naming the first column with something else in it.
    """
    import pandas as pd

    out = np.empty((len(table), len(columns)))
    for i, column in enumerate(columns):
        out[:, i] = pd.to_numeric(table[column], errors="coerce")
        if not np.isfinite(out[:, i]).all():
            row = int(np.flatnonzero(~np.isfinite(out[:, i]))[0]) + 1
            raise SpotsError(f"{path}: column {column} holds no number in data row {row}; fix it.")
    return out
