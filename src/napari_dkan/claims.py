"""Refusing tables that claim far more than they hold, before anything of the kind is allocated.

A gzip file may unpack to a thousand times its size, and other formats may state what is not there.
HDF5 files are looked at in `probe`.
"""

from __future__ import annotations

import gzip
from pathlib import Path

SURELY = 256 << 20  # bytes that any machine can hold
DEFLATE = 1_100  # times that gzip can shrink at the very most (zlib: 1032)
TEXT = 200  # times that a table of counts shrinks at the very most; real ones 5 to 40
_STEP = 4 << 20


def gzip_doubt(path: Path) -> str:
    """Why a gzipped table must not be read; "" where nothing speaks against it, as for a file
    that is not gzipped. Unpacks it piece by piece, keeping nothing.

    Raises OSError or EOFError where it is damaged.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return ""
    most, seen = max(SURELY, TEXT * path.stat().st_size), 0
    with gzip.open(path) as file:
        while piece := file.read(_STEP):
            seen += len(piece)
            if seen > most:
                return claims(seen)
    return ""


def parquet_doubt(path: Path) -> str:
    """Why a Parquet table must not be read; "" where nothing speaks against it: a column of one
    value takes a few bytes, however many rows it has.

    Raises what pyarrow raises for a file that is damaged.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        size = 8 * file.metadata.num_rows * file.metadata.num_columns
    return claims(size) if size > max(4 * SURELY, DEFLATE * path.stat().st_size) else ""


def market_doubt(path: Path) -> str:
    """Why a Matrix Market file must not be read; "" where nothing speaks against it: its first
    line says how many entries it has, each of which takes four characters or more.

    Raises what scipy raises for a file that is damaged.
    """
    from scipy.io import mminfo

    entries = int(mminfo(path)[2])
    return claims(16 * entries) if entries > max(10**6, TEXT * path.stat().st_size) else ""


def claims(size: int) -> str:
    """The half sentence about so many bytes."""
    return f"it claims to hold {size / 2**30:,.1f} GB or more, far more than its size allows"
