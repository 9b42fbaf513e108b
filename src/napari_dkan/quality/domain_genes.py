"""The genes of spatial domains: how each domain differs from the rest of its slide.

There are no p-values: the domains were found in the same values, so that a test of their
difference would find one in noise too. All figures are of one slide, so of one patient.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_write import atomic_write, write_json
from .region_comparison import cohens_d, probability_above

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DomainGenes:
    """Values of G genes in D domains, and against all tiles outside of each.

    Attributes
    ----------
    symbols : tuple of str
    n_tiles : (D,) array
        Row d is of the domain with the number d + 1.
    mean, rest_mean : (D, G) arrays
    effect : (D, G) array
        Cohen's d of the tiles of the domain against the others: the difference of the means in
        standard deviations of a tile within both. NaN where a gene does not vary.
    above : (D, G) array
        Probability that a tile of the domain is above another one, ties counted half.
    """

    symbols: tuple[str, ...]
    n_tiles: NDArray[np.int64]
    mean: FloatArray
    rest_mean: FloatArray
    effect: FloatArray
    above: FloatArray

    def top_genes(self, domain: int, count: int) -> list[tuple[str, float]]:
        """Return the genes that are highest in a domain (from 1), with their effect, best first."""
        effect = self.effect[domain - 1]
        rows = np.argsort(-np.nan_to_num(effect, nan=-np.inf), kind="stable")[:count]
        return [(self.symbols[i], float(effect[i])) for i in rows if effect[i] > 0]


def compare_domains(
    values: NDArray[np.floating], symbols: tuple[str, ...], labels: NDArray[np.integer]
) -> DomainGenes:
    """Compare the tiles of each domain with all others.

    Parameters
    ----------
    values : (N, G) array
        Labels or predictions, finite.
    symbols : tuple of str
    labels : (N,) array
        Numbers from 1, as from `cluster_domains`.
    """
    table, count = np.asarray(values, np.float64), int(labels.max())
    shape = count, table.shape[1]
    mean, rest, effect, above = (np.full(shape, np.nan) for _ in range(4))
    for row in range(count):
        inside = labels == row + 1
        mean[row] = table[inside].mean(axis=0)
        if inside.all():
            continue  # there is no rest
        rest[row] = table[~inside].mean(axis=0)
        effect[row] = cohens_d(table[inside], table[~inside])
        above[row] = probability_above(table, inside)
    return DomainGenes(symbols, np.bincount(labels)[1:], mean, rest, effect, above)


GENE_COLUMNS = ("domain", "name", "tiles", "gene", "mean", "mean_rest", "effect_sd", "p_above_rest")
TILE_COLUMNS = ("x_px", "y_px", "domain", "name")


def write_domain_genes(
    path: str | Path, genes: DomainGenes, names: Sequence[str], provenance: Mapping[str, Any]
) -> Path:
    """Write a CSV with a row per domain and gene, best first, and ``path.json`` with the origin.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    rows: list[list[object]] = []
    figures = (genes.mean, genes.rest_mean, genes.effect, genes.above)
    for domain, name in enumerate(names):
        order = np.argsort(-np.nan_to_num(genes.effect[domain], nan=-np.inf), kind="stable")
        for gene in order:
            values = [f[domain, gene] for f in figures]
            cells = [f"{v:.6g}" if np.isfinite(v) else "" for v in values]
            rows.append([domain + 1, name, int(genes.n_tiles[domain]), genes.symbols[gene], *cells])
    return _write_table(path, GENE_COLUMNS, rows, provenance)


def write_domain_tiles(
    path: str | Path,
    xy: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: Sequence[str],
    provenance: Mapping[str, Any],
) -> Path:
    """Write a CSV with a row per tile: its centre in level-0 px and its domain; and ``path.json``.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    rows = [
        [f"{x:.2f}", f"{y:.2f}", int(label), names[label - 1]]
        for (x, y), label in zip(xy.tolist(), labels.tolist(), strict=True)
    ]
    return _write_table(path, TILE_COLUMNS, rows, provenance)


def _write_table(
    path: str | Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    provenance: Mapping[str, Any],
) -> Path:
    write_json(f"{path}.json", dict(provenance), allow_nan=True)
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)
    return Path(path)
