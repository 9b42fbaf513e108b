"""Tables of the report: genes with their figures, and how figures are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ...expression.panel import Panel
from ...inference.prediction import Prediction
from ...model.methods.method_configs import DKAN_METHOD, TITLES
from ..comparison import Comparison
from ..gene_metrics import DkanRidgePair, GeneMetrics

NO_VALUE_TEXT = "–"
CANNOT_BE_JUDGED = "cannot be judged"
CellValue = str | float | int | None


def format_decimal(value: float | None, digits: int = 3) -> str:
    """Format a number with a true minus, and a dash where it is not defined."""
    if value is None or value != value:
        return NO_VALUE_TEXT
    text = f"{value:.{digits}f}"
    if float(text) == 0:  # no minus zero
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def format_percent(value: float | None) -> str:
    """Format a share, with a dash where it is not defined."""
    return NO_VALUE_TEXT if value is None or value != value else f"{100 * value:.0f} %"


@dataclass(frozen=True)
class PlainTable:
    """A table that cannot be sorted; each row is its first cell and the others."""

    kind: str
    heads: tuple[str, ...]
    rows: list[tuple[object, list[object]]]
    has_row_heads: bool = True


@dataclass(frozen=True)
class TableCell:
    """A cell of a sortable table; `sort_value` is the key of its row, None without a value."""

    text: str
    css_class: str = ""
    sort_value: str | None = None


@dataclass(frozen=True)
class SortableRow:
    """A row of a gene table."""

    symbol: str
    name: str
    cells: list[TableCell]


@dataclass(frozen=True)
class SortableTable:
    """A sortable table of genes.

    Attributes
    ----------
    heads : list of (str, str)
        Title and tooltip of each column after the gene.
    groups : list of (str, int)
        Titles over the columns and how many columns each spans; [] for none.
    """

    heads: list[tuple[str, str]]
    rows: list[SortableRow]
    groups: list[tuple[str, int]]


@dataclass(frozen=True)
class GeneTableColumn:
    """A column of the table of compared genes; `group` is the title over it and its neighbours."""

    group: str
    header: str
    get_value: Callable[[GeneMetrics], CellValue]
    digits: int = 2
    tooltip: str = ""


def format_interval(low: float, high: float) -> str:
    if low != low:
        return NO_VALUE_TEXT
    return f"{format_decimal(low, 2)} to {format_decimal(high, 2)}"


def _format_partial(gene: GeneMetrics) -> CellValue:
    return gene.partial if gene.is_judged else CANNOT_BE_JUDGED


# The quality panel shows the same metrics under other titles (panels/quality/data).
_BESIDE_DEPTH = "depth-partial PCC"
GENE_TABLE_COLUMNS = (
    GeneTableColumn(
        _BESIDE_DEPTH,
        "DKAN",
        _format_partial,
        tooltip="depth-partial PCC: correlation over the spots after the number of molecules of "
        "each is regressed out; cannot be judged: too few counts here",
    ),
    GeneTableColumn(
        _BESIDE_DEPTH,
        "95 %",
        lambda g: format_interval(g.partial_low, g.partial_high),
        tooltip="interval of it over resampled blocks of spots",
    ),
    GeneTableColumn(_BESIDE_DEPTH, "ridge", lambda g: g.ridge_partial),
    GeneTableColumn(
        _BESIDE_DEPTH,
        "ceiling",
        lambda g: g.ceiling,
        tooltip="what a perfect prediction could reach, given the counting noise",
    ),
    GeneTableColumn(
        _BESIDE_DEPTH,
        "card",
        lambda g: g.expected_partial,
        tooltip="depth-partial PCC of DKAN on held-out sections, from the card",
    ),
    GeneTableColumn("DKAN", "PCC", lambda g: g.pcc, tooltip="Pearson correlation over the spots"),
    GeneTableColumn(
        "DKAN",
        "95 %",
        lambda g: format_interval(g.low, g.high),
        tooltip="interval of the PCC over resampled blocks of spots",
    ),
    GeneTableColumn("DKAN", "Spearman", lambda g: g.spearman),
    GeneTableColumn("DKAN", "MSE", lambda g: g.mse, 3, "mean squared error"),
    GeneTableColumn("ridge", "PCC", lambda g: g.ridge_pcc),
    GeneTableColumn("ridge", "Spearman", lambda g: g.ridge_spearman),
    GeneTableColumn("ridge", "MSE", lambda g: g.ridge_mse, 3),
    GeneTableColumn(
        "card expects", "DKAN", lambda g: g.expected_pcc, tooltip="PCC on held-out sections"
    ),
    GeneTableColumn("card expects", "ridge", lambda g: g.expected_ridge_pcc),
    GeneTableColumn("measured", "mean", lambda g: g.mean),
    GeneTableColumn("measured", "variance", lambda g: g.variance, 3),
    GeneTableColumn(
        "measured", "zeros", lambda g: g.zeros, tooltip="share of spots without a count"
    ),
    GeneTableColumn("predicted", "mean", lambda g: g.predicted_mean),
    GeneTableColumn("predicted", "variance", lambda g: g.predicted_variance, 3),
)


def rank_genes(comparison: Comparison) -> list[GeneMetrics]:
    """Sort the genes best predicted first; those that cannot be judged come last.

    They are sorted by the depth-partial PCC, by the plain one where the counts are not known.
    """

    def key(gene: GeneMetrics) -> tuple[bool, bool, float]:
        value = gene.pcc if comparison.reference is None else gene.partial
        return (not gene.is_judged, value != value, -value)

    return sorted(comparison.metrics_per_gene, key=key)


def make_gene_table(comparison: Comparison) -> SortableTable:
    """Tabulate all genes that are measured and predicted, best predicted first."""
    genes = rank_genes(comparison)
    columns: tuple[GeneTableColumn, ...] = GENE_TABLE_COLUMNS
    if comparison.ridge is None:
        columns = tuple(c for c in columns if "ridge" not in (c.group, c.header))
    if comparison.reference is None:
        columns = tuple(c for c in columns if c.group != _BESIDE_DEPTH)
    if not comparison.held_out_partial:
        columns = tuple(c for c in columns if c.header != "card")
    if not comparison.held_out_pcc:
        columns = tuple(c for c in columns if c.group != "card expects")
    groups = [(name, list(members)) for name, members in groupby(columns, lambda c: c.group)]
    first_of_group = [members[0] for _, members in groups]
    rows = [
        _make_gene_row(
            comparison.panel,
            gene.symbol,
            [
                _make_cell(c.get_value(gene), c.digits, c.header == "zeros", c in first_of_group)
                for c in columns
            ],
        )
        for gene in genes
    ]

    def name_method(text: str) -> str:
        return text.replace(TITLES[DKAN_METHOD], comparison.method)

    return SortableTable(
        [(name_method(c.header), name_method(c.tooltip)) for c in columns],
        rows,
        [(name_method(name), len(members)) for name, members in groups],
    )


def make_predicted_table(
    prediction: Prediction,
    held_out_pcc: Mapping[str, DkanRidgePair],
    method: str = TITLES[DKAN_METHOD],
) -> SortableTable:
    """Tabulate all genes of a section without measurements."""
    heads = [("name", ""), ("mean", ""), ("variance", "")]
    if held_out_pcc:
        heads += [(f"card expects, {method}", "PCC on held-out sections"), ("ridge", "")]
    rows = []
    values = np.asarray(prediction.values, float)
    for gene, column in zip(prediction.panel.genes, values.T, strict=True):
        known = column[np.isfinite(column)]
        moments = (float(known.mean()), float(known.var())) if len(known) else (None, None)
        cells = [TableCell(gene.name, "words", gene.name)]
        cells += [_make_cell(value, 3) for value in moments]
        if held_out_pcc:
            cells += [_make_cell(v, 2) for v in held_out_pcc.get(gene.symbol, (None, None))]
        rows.append(_make_gene_row(prediction.panel, gene.symbol, cells))
    return SortableTable(heads, rows, [])


def _make_gene_row(panel: Panel, symbol: str, cells: list[TableCell]) -> SortableRow:
    name = panel.genes[panel.row(symbol)].name if symbol in panel else ""
    return SortableRow(symbol, name, cells)


def _make_cell(
    value: CellValue, digits: int, is_percent: bool = False, is_first: bool = False
) -> TableCell:
    if value == CANNOT_BE_JUDGED:
        return TableCell(CANNOT_BE_JUDGED, "first" if is_first else "")
    if isinstance(value, str):
        return TableCell(value, "", value.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
    css_class = "first" if is_first else ""
    if value is None or value != value:
        return TableCell(NO_VALUE_TEXT, css_class)
    text = f"{100 * value:.0f} %" if is_percent else format_decimal(value, digits)
    return TableCell(text, css_class, f"{value:.6g}")
