"""Size limits for tables that may unpack to far more than their file size (decompression bombs)."""

from __future__ import annotations

import gzip
from pathlib import Path

ALWAYS_ALLOWED_BYTES = 256 << 20  # bytes that any machine can hold
MAX_DEFLATE_RATIO = 1_100  # times that gzip can shrink at the very most (zlib: 1032)
MAX_TEXT_RATIO = 200  # times that a table of counts shrinks at the very most; real ones 5 to 40
_READ_BYTES = 4 << 20


def validate_gzip_size(path: Path) -> str:
    """Why a gzipped table must not be read; "" where nothing speaks against it, as for a file
    that is not gzipped. Unpacks it piece by piece, keeping nothing.

    Raises OSError or EOFError where it is damaged.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return ""
    most, seen = max(ALWAYS_ALLOWED_BYTES, MAX_TEXT_RATIO * path.stat().st_size), 0
    with gzip.open(path) as file:
        while piece := file.read(_READ_BYTES):
            seen += len(piece)
            if seen > most:
                return describe_excess_size(seen)
    return ""


def validate_parquet_size(path: Path) -> str:
    """Why a Parquet table must not be read; "" where nothing speaks against it: a column of one
    value takes a few bytes, however many rows it has.

    Raises what pyarrow raises for a file that is damaged.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        size = 8 * file.metadata.num_rows * file.metadata.num_columns
    return (
        describe_excess_size(size)
        if size > max(4 * ALWAYS_ALLOWED_BYTES, MAX_DEFLATE_RATIO * path.stat().st_size)
        else ""
    )


def validate_matrix_market_size(path: Path) -> str:
    """Why a Matrix Market file must not be read; "" where nothing speaks against it: its first
    line says how many entries it has, each of which takes four characters or more.

    Raises what scipy raises for a file that is damaged.
    """
    from scipy.io import mminfo

    entries = int(mminfo(path)[2])
    return (
        describe_excess_size(16 * entries)
        if entries > max(10**6, MAX_TEXT_RATIO * path.stat().st_size)
        else ""
    )


def describe_excess_size(size: int) -> str:
    """The half sentence about so many bytes."""
    return f"it claims to hold {size / 2**30:,.1f} GB or more, far more than its size allows"
