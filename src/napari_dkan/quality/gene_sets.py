"""Scores of gene sets at spots, the same way for measured and predicted values.

Score: mean of the set's genes less that of control genes of similar level (scanpy's
``score_genes``; Satija et al., Nature Biotechnology 33, 495, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GeneError, SpotsError
from ..expression.panel import Panel
from .gmt import GeneSet as GeneSet
from .gmt import load_hallmark_sets as load_hallmark_sets
from .gmt import read_gmt as read_gmt

MIN_PANEL_GENES = 5  # of a set in the panel; the mean of fewer is the noise of one
_CONTROL_GENES_PER_BIN = 50  # genes from each bin of level, as scanpy has it
_GENES_PER_BIN = 25  # genes; a panel is small, so that a bin is all control and nothing is drawn by chance
_MAX_BINS = 25
_SCORE_SEED = 2021


@dataclass(frozen=True, eq=False)
class GeneSetScores:
    """Scores of the sets that could be scored.

    names : S. scores : (N, S) float32, in the units of the values.
    skipped : by name, why a set has no score.
    used : by name, the panel genes that make up its score.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float32]
    skip_reasons: dict[str, str]
    scored_genes: dict[str, tuple[str, ...]]


def score_gene_sets(
    values: NDArray[np.floating],
    panel: Panel,
    sets: Sequence[GeneSet],
    paired_values: NDArray[np.floating] | None = None,
) -> GeneSetScores:
    """Score sets on values (N, G) of a panel's genes.

    beside : (M, G) values that are to be scored with the same control genes: give predicted
        values beside measured ones and the other way round, and both scores are comparable. The
        control genes are chosen by the genes' levels over both together.

    Raises SpotsError when a value is missing, GeneError when no set at all can be scored.
    """
    import anndata
    import pandas as pd
    import scanpy

    both = np.asarray(values, np.float64)
    if paired_values is not None:
        both = np.concatenate([both, np.asarray(paired_values, np.float64)])
    if not np.isfinite(both).all():
        raise SpotsError("Some spots have no value for some gene; predict all genes first.")
    rows = pd.Index([str(i) for i in range(len(both))])
    data = anndata.AnnData(
        both, obs=pd.DataFrame(index=rows), var=pd.DataFrame(index=list(panel.symbols))
    )
    bins = int(np.clip(round(len(panel) / _GENES_PER_BIN) + 1, 2, _MAX_BINS))
    symbol_of = _map_aliases(panel)
    used: dict[str, tuple[str, ...]] = {}
    skipped: dict[str, str] = {}
    columns: list[NDArray] = []
    for one in sets:
        hits = (symbol_of.get(g.upper()) for g in one.genes)
        genes = tuple(dict.fromkeys(g for g in hits if g))
        if len(genes) < MIN_PANEL_GENES:
            skipped[one.name] = (
                f"{len(genes)} of its {len(one.genes)} genes "
                f"{'is' if len(genes) == 1 else 'are'} in the panel; it takes {MIN_PANEL_GENES}"
            )
            continue
        try:
            scanpy.tl.score_genes(
                data, list(genes), ctrl_size=_CONTROL_GENES_PER_BIN, n_bins=bins, random_state=_SCORE_SEED
            )
        except RuntimeError:  # what scanpy says when no gene is left for control
            skipped[one.name] = "the panel has no other genes of similar level to compare it with"
            continue
        used[one.name] = genes
        columns.append(data.obs["score"].to_numpy(np.float32)[: len(values)])
    if not columns:
        raise GeneError(
            f"None of the {len(sets)} gene sets has {MIN_PANEL_GENES} genes among the {len(panel)} "
            "of the panel; choose other sets."
        )
    return GeneSetScores(tuple(used), np.stack(columns, axis=1), skipped, used)


def _map_aliases(panel: Panel) -> dict[str, str]:
    """The panel's symbol by any name in capitals; a name that two genes claim is nobody's."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for gene in panel.genes:
        for alias in {a.upper() for a in gene.aliases}:
            twice |= {alias} & found.keys()
            found[alias] = gene.symbol
    known = {alias: symbol for alias, symbol in found.items() if alias not in twice}
    return known | {symbol.upper(): symbol for symbol in panel.symbols}
