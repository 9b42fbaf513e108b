"""Size limits for tables that may unpack to far more than their file size (decompression bombs)."""

from __future__ import annotations

import gzip
from pathlib import Path

ALWAYS_ALLOWED_BYTES = 256 << 20  # fits into the memory of any machine
MAX_DEFLATE_RATIO = 1_100  # upper bound of gzip compression (zlib: 1032)
MAX_TEXT_RATIO = 200  # upper bound for tables of counts; real ones have 5 to 40
_READ_BYTES = 4 << 20


def validate_gzip_size(path: Path) -> str:
    """Check the unpacked size of a gzipped table, without storing what is unpacked.

    Returns
    -------
    str
        Why the file must not be read, as half a sentence; "" if it may be read or is not gzipped.

    Raises
    ------
    OSError, EOFError
        The file is damaged.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return ""
    limit = max(ALWAYS_ALLOWED_BYTES, MAX_TEXT_RATIO * path.stat().st_size)
    n_bytes = 0
    with gzip.open(path) as file:
        while piece := file.read(_READ_BYTES):
            n_bytes += len(piece)
            if n_bytes > limit:
                return describe_excess_size(n_bytes)
    return ""


def validate_parquet_size(path: Path) -> str:
    """Check the size of a Parquet table; a column of one value is stored in a few bytes.

    Returns
    -------
    str
        Why the file must not be read, as half a sentence; "" if it may be read.

    Raises
    ------
    Exception
        What pyarrow raises for a damaged file.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        size = 8 * file.metadata.num_rows * file.metadata.num_columns
    limit = max(4 * ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO * path.stat().st_size)
    return describe_excess_size(size) if size > limit else ""


def validate_matrix_market_size(path: Path) -> str:
    """Check the number of entries in the header of a Matrix Market file against its size.

    An entry has at least four characters.

    Returns
    -------
    str
        Why the file must not be read, as half a sentence; "" if it may be read.

    Raises
    ------
    Exception
        What scipy raises for a damaged file.
    """
    from scipy.io import mminfo

    n_entries = int(mminfo(path)[2])
    limit = max(10**6, MAX_TEXT_RATIO * path.stat().st_size)
    return describe_excess_size(16 * n_entries) if n_entries > limit else ""


def describe_excess_size(size: int) -> str:
    """Return the half sentence about a claimed size in bytes."""
    return f"it claims to hold {size / 2**30:,.1f} GB or more, far more than its size allows"
