"""What the table of two checkpoints shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .table import UNKNOWN, Column, Rows, figures

if TYPE_CHECKING:
    from ...quality.rivals import Rivals


def rival_rows(rivals: Rivals) -> Rows:
    """One row per gene that both predict."""
    genes, (first, second) = rivals.genes, rivals.titles
    agreement = figures(
        "agree",
        "Correlation of the two predicted maps: 1 is the same pattern",
        [g.agreement for g in genes],
    )
    difference = figures(
        "differ", "Mean absolute difference of the two maps", [g.difference for g in genes], ".3f"
    )
    pcc_a = np.array([g.pcc_a for g in genes], dtype=float)
    pcc_b = np.array([g.pcc_b for g in genes], dtype=float)
    columns = [agreement]
    if np.isfinite(pcc_a).any():
        names = {"first": "1st", "second": "2nd", "": UNKNOWN}
        columns += [
            figures("1st PCC", f"{first}: correlation with the measured values", pcc_a),
            figures("2nd PCC", f"{second}: correlation with the measured values", pcc_b),
            Column(
                "better",
                f"Whose map correlates better with what was measured: 1st is {first}, 2nd is "
                f"{second}; sorted by how much better the second is",
                pcc_b - pcc_a,
                lambda row: names[genes[row].prefers],
            ),
        ]
    if rivals.same_scale:
        columns.append(difference)
    notes = tuple(g.name for g in rivals.panel.genes)
    return Rows(rivals.panel.symbols, tuple(columns), notes)
