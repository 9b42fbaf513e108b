"""Validated raw counts of spots and genes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .gene_names import FeatureTable, select_genes
from .readers.read_account import ReadAccount

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


_GRID_NAME = re.compile(r"(-?\d+(?:\.\d+)?)x(-?\d+(?:\.\d+)?)")
# Largest part of the counts with fractions; some pipelines divide a read between two genes.
_MAX_FRACTIONAL_SHARE = 0.01


@dataclass(frozen=True)
class CountMatrix:
    """Raw counts (S spots, G genes).

    Attributes
    ----------
    matrix
        (S, G) float32, sparse by rows.
    spot_names
        S unique names; ids like ``10.02x12`` are rounded to ``10x12``.
    genes
        G unique symbols, in the order of the file.
    ensembl_ids
        G Ensembl ids, "" where unknown; () when the file has none.
    n_merged_genes
        Columns that were added to an earlier column with the same symbol.
    account
        What was read and left out; see `ReadAccount`.
    """

    matrix: csr_matrix
    spot_names: tuple[str, ...]
    genes: tuple[str, ...]
    ensembl_ids: tuple[str, ...] = ()
    n_merged_genes: int = 0
    account: ReadAccount = field(default_factory=ReadAccount)


def counts_from_matrix(
    matrix: Any, spots: Sequence[str], features: FeatureTable, path: Path
) -> CountMatrix:
    """Validate the counts of a matrix and select its genes.

    Features that are no genes are left out; see `select_genes`. Genes that share a symbol (two
    Ensembl ids, one name) are summed into the first, whose id is used.

    Parameters
    ----------
    matrix
        Spots x features, dense or sparse.
    spots
        Names of the rows.
    features
        Names of the columns, and what else the file states of them.
    path
        The file, for errors.

    Raises
    ------
    SpotsError
        The matrix is empty, has a spot twice, has negative, missing or normalised values, or no
        feature is a gene.
    """
    from scipy import sparse

    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format()  # indices out of range would crash scipy
        matrix = sparse.csr_matrix(matrix, dtype=np.float32)
    except (ValueError, TypeError, IndexError) as error:
        raise SpotsError(
            f"{path} holds something other than counts; every cell after the spot "
            "name must be a number."
        ) from error
    if matrix.shape != (len(spots), len(features.names)):
        raise SpotsError(
            f"{path} names {len(spots)} spots and {len(features.names)} genes beside "
            f"{matrix.shape[0]} x {matrix.shape[1]} counts; write it again."
        )
    if not len(spots) or not len(features.names):
        raise SpotsError(f"{path} holds no counts.")
    selected = select_genes(features, path)
    genes, ids = selected.symbols, selected.ensembl_ids
    if len(selected.columns) < matrix.shape[1]:
        matrix = matrix[:, selected.columns]
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise SpotsError(f"{path} holds negative or missing counts; give raw counts.")
    if not is_integer_valued(matrix.data):
        raise SpotsError(
            f"{path} holds fractions instead of counts, as if normalised; give raw counts."
        )
    names = round_grid_names(spots) or tuple(map(str, spots))
    duplicate = _first_duplicate(names)
    if duplicate is not None:
        raise SpotsError(f"{path} has two rows for spot {duplicate}; keep one.")
    symbols = tuple(dict.fromkeys(genes))
    n_merged = len(genes) - len(symbols)
    if n_merged:
        column_of = {symbol: i for i, symbol in enumerate(symbols)}
        columns = [column_of[gene] for gene in genes]
        ones = np.ones(len(genes), dtype=np.float32)
        shape = (len(genes), len(symbols))
        matrix = sparse.csr_matrix(
            matrix @ sparse.csr_matrix((ones, (np.arange(len(genes)), columns)), shape)
        )
        first = np.unique(columns, return_index=True)[1]
        ids = tuple(ids[i] for i in first) if ids else ()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    account = replace(selected.account, file=str(path), genes_read=len(symbols))
    if n_merged:
        added = "1 gene was" if n_merged == 1 else f"{n_merged} genes were"
        account = account.add_note(f"{added} added to another of the same symbol")
    return CountMatrix(matrix, names, symbols, ids, n_merged, account)


def is_integer_valued(values: NDArray[Any]) -> bool:
    """Whether values look like counts: whole numbers, with few exceptions."""
    fractions = np.abs(values - np.rint(values)) > 1e-3
    return not fractions.size or float(fractions.mean()) <= _MAX_FRACTIONAL_SHARE


def round_grid_names(names: Sequence[str]) -> tuple[str, ...] | None:
    """Round array names like ``10.02x12`` to ``10x12``; None unless all names are of that kind.

    The count files of the her2st study have such decimals.
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
