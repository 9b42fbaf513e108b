"""What the gene table shows: DKAN's figures, and those of the methods it must be held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .table import Column, Rows, figures, number

if TYPE_CHECKING:
    from ...quality.compare import Comparison
    from ...quality.gene_table import GeneFigures

NOT_SURE = "The 95 % interval does not lie above 0: this gene may not be predicted here at all."
BELOW_RIDGE = "The ridge baseline does better than DKAN on this gene."
CONSTANT = "Measured or predicted is the same at all spots, so there is no correlation."
CARD_LOW = "On held-out sections DKAN did no better than ridge on this gene."


def gene_rows(comparison: Comparison) -> Rows:
    """One row per gene that is both measured and predicted, in the panel's order."""
    table = comparison.table
    pcc, low, high, ridge = (_values(table, name) for name in ("pcc", "low", "high", "ridge_pcc"))
    expected, expected_ridge = (
        _values(table, name) for name in ("expected_pcc", "expected_ridge_pcc")
    )
    unsure = (low <= 0) | (pcc <= 0)
    constant = np.isnan(pcc)
    below = ridge > pcc
    doubtful = expected_ridge >= expected
    spots = len(comparison.spots)
    columns = (
        Column(
            "PCC [95 %]",
            f"Pearson correlation of measured and predicted values over {spots:,} spots, with "
            "its 95 % interval (from drawing spatial blocks again and again, since neighbours "
            "are not independent)",
            pcc,
            lambda row: _interval(pcc[row], low[row], high[row]),
            unsure,
            NOT_SURE,
        ),
        figures(
            "ridge",
            "PCC of the ridge baseline: a linear model on the same tiles, trained on the same "
            "sections; what DKAN has to beat",
            ridge,
            warned=below,
            warning=BELOW_RIDGE,
        ),
        figures(
            "card",
            "PCC to be expected: what DKAN reached on held-out sections, from the checkpoint's "
            "card",
            expected,
            warned=doubtful,
            warning=CARD_LOW,
        ),
        figures("card ridge", "What ridge reached on the same held-out sections", expected_ridge),
        _column(table, "Spearman", "spearman", "Rank correlation over the same spots"),
        _column(table, "ridge Sp.", "ridge_spearman", "Rank correlation of the ridge baseline"),
        _column(table, "MSE", "mse", "Mean squared error on the label scale", ".3f"),
        _column(table, "ridge MSE", "ridge_mse", "Mean squared error of ridge", ".3f"),
        _column(table, "mean", "mean", "Mean of the measured values"),
        _column(table, "pred. mean", "predicted_mean", "Mean of the predicted values"),
        _column(table, "variance", "variance", "Variance of the measured values", ".3f"),
        _column(
            table,
            "pred. var.",
            "predicted_variance",
            "Variance of the predicted values; a map much flatter than measured has less",
            ".3f",
        ),
        _column(table, "zeros", "zeros", "Share of spots in which the gene was not counted", ".0%"),
    )
    bad, notes = unsure | below | constant, []
    for row, gene in enumerate(comparison.panel.genes):
        why = [NOT_SURE] if unsure[row] else []
        why += [BELOW_RIDGE] if below[row] else []
        why += [CONSTANT] if constant[row] else []
        notes.append("\n".join(t for t in (gene.name, *why) if t))
    return Rows(tuple(f.symbol for f in table), columns, tuple(notes), bad)


def exported(comparison: Comparison) -> Rows:
    """The same for a file: the interval's ends have columns of their own."""
    shown, table = gene_rows(comparison), comparison.table
    pcc, *others = shown.columns
    names = "pcc", "low", "high"
    ends = tuple(figures(name, pcc.explained, _values(table, name)) for name in names)
    return Rows(shown.symbols, (*ends, *others))


def _values(table: tuple[GeneFigures, ...], name: str) -> NDArray[np.float64]:
    return np.array([getattr(row, name) for row in table], dtype=float)


def _column(
    table: tuple[GeneFigures, ...], title: str, name: str, explained: str, form: str = ".2f"
) -> Column:
    return figures(title, explained, _values(table, name), form)


def _interval(pcc: float, low: float, high: float) -> str:
    if np.isnan(pcc):
        return number(pcc)
    return f"{pcc:.2f} [{number(low)}, {number(high)}]"
