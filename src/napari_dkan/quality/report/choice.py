"""Which genes are shown as maps when nobody says it."""

from __future__ import annotations

from ...model.checkpoint import Checkpoint
from ..compare import Comparison

USUAL = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8")
FIRST, BEST, WORST = 2, 2, 2


def default_genes(checkpoint: Checkpoint, comparison: Comparison | None) -> tuple[str, ...]:
    """The card's first genes, then those predicted best and worst, so that neither flatters.

    Without measurements the first six of the card, of those everybody asks for, of the panel.
    """
    card = checkpoint.card.get("first_genes", [])
    asked = [g for g in (card if isinstance(card, list) else []) if isinstance(g, str)]
    symbols = comparison.panel.symbols if comparison else checkpoint.panel.symbols
    first = list(dict.fromkeys(g for g in (*asked, *USUAL, *symbols) if g in symbols))
    if comparison is None:
        return tuple(first[: FIRST + BEST + WORST])
    known = sorted((g for g in comparison.table if g.pcc == g.pcc), key=lambda g: -g.pcc)
    ranked = [g.symbol for g in known]
    chosen = [*first[:FIRST], *ranked[:BEST], *ranked[max(len(ranked) - WORST, 0) :]]
    return tuple(dict.fromkeys(chosen))
