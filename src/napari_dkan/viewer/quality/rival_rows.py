"""What the table of two checkpoints shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .table import NO_VALUE, MetricColumn, MetricsTableData, make_metric_column

if TYPE_CHECKING:
    from ...quality.rivals import ModelComparison


def make_model_comparison_table(rivals: ModelComparison) -> MetricsTableData:
    """One row per gene that both predict."""
    genes, (first, second) = rivals.gene_comparisons, rivals.titles
    agreement = make_metric_column(
        "agree",
        "Correlation of the two predicted maps: 1 is the same pattern",
        [g.map_correlation for g in genes],
    )
    difference = make_metric_column(
        "differ", "Mean absolute difference of the two maps", [g.mean_abs_difference for g in genes], ".3f"
    )
    pcc_a = np.array([g.pcc_a for g in genes], dtype=float)
    pcc_b = np.array([g.pcc_b for g in genes], dtype=float)
    columns = [agreement]
    if np.isfinite(pcc_a).any():
        names = {"first": "1st", "second": "2nd", "": NO_VALUE}
        columns += [
            make_metric_column("1st PCC", f"{first}: correlation with the measured values", pcc_a),
            make_metric_column("2nd PCC", f"{second}: correlation with the measured values", pcc_b),
            MetricColumn(
                "better",
                f"Whose map correlates better with what was measured: 1st is {first}, 2nd is "
                f"{second}; sorted by how much better the second is",
                pcc_b - pcc_a,
                lambda row: names[genes[row].preferred_model],
            ),
        ]
    if rivals.has_same_label_scale:
        columns.append(difference)
    notes = tuple(g.name for g in rivals.panel.genes)
    return MetricsTableData(rivals.panel.symbols, tuple(columns), notes)
