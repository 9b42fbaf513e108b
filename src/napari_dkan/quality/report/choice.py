"""Which genes are shown as maps when nobody says it."""

from __future__ import annotations

from ...model.checkpoint import Checkpoint
from ..compare import Comparison

COMMON_GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8")
N_CARD_GENES, N_BEST_GENES, N_WORST_GENES = 2, 2, 2


def choose_report_genes(checkpoint: Checkpoint, comparison: Comparison | None) -> tuple[str, ...]:
    """The card's first genes, then those predicted best and worst, so that neither flatters.

    Without measurements the first six of the card, of those everybody asks for, of the panel.
    """
    card = checkpoint.card.get("first_genes", [])
    asked = [g for g in (card if isinstance(card, list) else []) if isinstance(g, str)]
    symbols = comparison.panel.symbols if comparison else checkpoint.panel.symbols
    first = list(dict.fromkeys(g for g in (*asked, *COMMON_GENES, *symbols) if g in symbols))
    if comparison is None:
        return tuple(first[: N_CARD_GENES + N_BEST_GENES + N_WORST_GENES])
    known = sorted((g for g in comparison.metrics_per_gene if g.pcc == g.pcc), key=lambda g: -g.pcc)
    ranked = [g.symbol for g in known]
    chosen = [*first[:N_CARD_GENES], *ranked[:N_BEST_GENES], *ranked[max(len(ranked) - N_WORST_GENES, 0) :]]
    return tuple(dict.fromkeys(chosen))
