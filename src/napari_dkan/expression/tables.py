"""Delimited text tables, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path, header: bool = True, index: bool = False) -> pd.DataFrame:
    """A TSV or CSV (gzipped or not) with its separator taken from the first line.

    Raises SpotsError when the file is missing, empty or not a table.
    """
    import pandas as pd

    if not path.is_file():
        raise SpotsError(f"{path} does not exist; check the path.")
    try:
        first = pd.read_csv(path, header=None, nrows=1, sep="\0", dtype=str).iloc[0, 0]
        return pd.read_csv(
            path,
            sep="\t" if "\t" in first else ",",
            header=0 if header else None,
            index_col=0 if index else None,
        )
    except (ValueError, OSError, EOFError, AttributeError, IndexError, TypeError) as error:
        # pandas' parser errors and bad encodings are ValueErrors; a broken gzip is an OSError
        raise SpotsError(f"{path} is not a readable table; save it as TSV or CSV.") from error


def numbers(table: pd.DataFrame, columns: list[str], path: Path) -> NDArray[np.float64]:
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
