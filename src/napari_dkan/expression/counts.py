"""Raw counts of spots and genes, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SpotsError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


_GRID_NAME = re.compile(r"(-?\d+(?:\.\d+)?)x(-?\d+(?:\.\d+)?)")
_MAX_FRACTIONAL_SHARE = 0.01  # of the counts; some pipelines share a read between two genes


@dataclass(frozen=True)
class CountMatrix:
    """Raw counts (S spots, G genes).

    matrix : (S, G) float32, sparse by rows.
    spots : S unique names; ids like ``10.02x12`` are rounded to ``10x12``.
    genes : G unique symbols, in the order of the file.
    ids : G Ensembl ids, "" where unknown; () when the file has none.
    merged : columns that were added to an earlier column of the same symbol.
    """

    matrix: csr_matrix
    spot_names: tuple[str, ...]
    genes: tuple[str, ...]
    ensembl_ids: tuple[str, ...] = ()
    n_merged_genes: int = 0


def counts_from_matrix(
    matrix: Any, spots: Sequence[str], genes: Sequence[str], path: Path, ids: Sequence[str] = ()
) -> CountMatrix:
    """Counts from any matrix (spots x genes, dense or sparse).

    Genes that share a symbol (two Ensembl ids, one name) are summed in the place of the first,
    which also keeps its id.

    Raises SpotsError naming the file when it is empty, names a spot twice, or holds negative,
    missing, or normalised values instead of counts.
    """
    from scipy import sparse

    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format()  # scipy trusts indices; out of range they end the process
        matrix = sparse.csr_matrix(matrix, dtype=np.float32)
    except (ValueError, TypeError, IndexError) as error:
        raise SpotsError(
            f"{path} holds something other than counts; every cell after the spot "
            "name must be a number."
        ) from error
    if matrix.shape != (len(spots), len(genes)):
        raise SpotsError(
            f"{path} names {len(spots)} spots and {len(genes)} genes beside "
            f"{matrix.shape[0]} x {matrix.shape[1]} counts; write it again."
        )
    if not len(spots) or not len(genes):
        raise SpotsError(f"{path} holds no counts.")
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise SpotsError(f"{path} holds negative or missing counts; give raw counts.")
    if not is_integer_valued(matrix.data):
        raise SpotsError(
            f"{path} holds fractions instead of counts, as if normalised; give raw counts."
        )
    names = round_grid_names(spots) or tuple(map(str, spots))
    twice = _first_duplicate(names)
    if twice is not None:
        raise SpotsError(f"{path} has two rows for spot {twice}; keep one.")
    symbols = tuple(dict.fromkeys(map(str, genes)))
    merged = len(genes) - len(symbols)
    if merged:
        row = {s: i for i, s in enumerate(symbols)}
        columns = [row[str(g)] for g in genes]
        ones = np.ones(len(genes), dtype=np.float32)
        shape = (len(genes), len(symbols))
        matrix = sparse.csr_matrix(
            matrix @ sparse.csr_matrix((ones, (np.arange(len(genes)), columns)), shape)
        )
        first = np.unique(columns, return_index=True)[1]
        ids = [ids[i] for i in first] if ids else ()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return CountMatrix(matrix, names, symbols, tuple(map(str, ids)), merged)


def is_integer_valued(values: np.ndarray) -> bool:
    """Whether the values look like counts: whole numbers, but for a few."""
    fractions = np.abs(values - np.rint(values)) > 1e-3
    return not fractions.size or float(fractions.mean()) <= _MAX_FRACTIONAL_SHARE


def round_grid_names(names: Sequence[str]) -> tuple[str, ...] | None:
    """Array names like ``10x12``, decimals rounded; None unless all names are of that kind.

    The counts of the her2st study carry decimals where its spot files do.
    """
    pairs = []
    for name in names:
        match = _GRID_NAME.fullmatch(str(name))
        if match is None:
            return None
        pairs.append(match.groups())
    if not pairs:
        return None
    return tuple(f"{x}x{y}" for x, y in np.rint(np.array(pairs, float)).astype(np.int64))


def _first_duplicate(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
