"""Tables of the page; what the script sorts by stands in ``data-v``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...expression.panel import Panel
from ...inference.prediction import Prediction
from ..compare import Comparison
from ..gene_table import GeneMetrics, MethodMetrics, ComparisonSummary
from .markup import NO_VALUE_TEXT, MarkupChildren, SafeMarkup, format_decimal, build_element

CellValue = str | float | int | None


@dataclass(frozen=True)
class GeneTableColumn:
    """A column of a table of genes. group : what stands over it and its neighbours."""

    group: str
    header: str
    get_value: Callable[[GeneMetrics], CellValue]
    digits: int = 2
    tooltip: str = ""


def _format_interval(g: GeneMetrics) -> str:
    return NO_VALUE_TEXT if g.low != g.low else f"{format_decimal(g.low, 2)} to {format_decimal(g.high, 2)}"


GENE_TABLE_COLUMNS = (
    GeneTableColumn("DKAN", "PCC", lambda g: g.pcc, tooltip="Pearson correlation over the spots"),
    GeneTableColumn("DKAN", "95 %", _format_interval, tooltip="interval of the PCC over resampled blocks of spots"),
    GeneTableColumn("DKAN", "Spearman", lambda g: g.spearman),
    GeneTableColumn("DKAN", "MSE", lambda g: g.mse, 3, "mean squared error"),
    GeneTableColumn("ridge", "PCC", lambda g: g.ridge_pcc),
    GeneTableColumn("ridge", "Spearman", lambda g: g.ridge_spearman),
    GeneTableColumn("ridge", "MSE", lambda g: g.ridge_mse, 3),
    GeneTableColumn("card expects", "DKAN", lambda g: g.expected_pcc, tooltip="PCC on held-out sections"),
    GeneTableColumn("card expects", "ridge", lambda g: g.expected_ridge_pcc),
    GeneTableColumn("measured", "mean", lambda g: g.mean),
    GeneTableColumn("measured", "variance", lambda g: g.variance, 3),
    GeneTableColumn("measured", "zeros", lambda g: g.zeros, tooltip="share of spots without a count"),
    GeneTableColumn("predicted", "mean", lambda g: g.predicted_mean),
    GeneTableColumn("predicted", "variance", lambda g: g.predicted_variance, 3),
)


def build_gene_table(comparison: Comparison) -> SafeMarkup:
    """All genes that are measured and predicted, best predicted first."""
    rows = sorted(comparison.metrics_per_gene, key=lambda g: (g.pcc != g.pcc, -g.pcc))
    columns: tuple[GeneTableColumn, ...] = GENE_TABLE_COLUMNS
    if comparison.ridge is None:
        columns = tuple(c for c in columns if c.group != "ridge")
    if not comparison.held_out_pcc:
        columns = tuple(c for c in columns if c.group != "card expects")
    firsts = [c for i, c in enumerate(columns) if not i or columns[i - 1].group != c.group]
    body = [
        build_element(
            "tr",
            _build_gene_cell(comparison.panel, g.symbol),
            [_build_value_cell(c.get_value(g), c.digits, c.header == "zeros", c in firsts) for c in columns],
        )
        for g in rows
    ]
    groups: list[tuple[str, int]] = []
    for c in columns:
        if groups and groups[-1][0] == c.group:
            groups[-1] = (c.group, groups[-1][1] + 1)
        else:
            groups.append((c.group, 1))
    over = build_element("tr", build_element("td"), [build_element("th", g, colspan=n, scope="colgroup") for g, n in groups])
    return _build_sortable_table(over, [(c.header, c.tooltip or None) for c in columns], body)


def build_predicted_table(
    prediction: Prediction, held_out_pcc: Mapping[str, tuple[float | None, float | None]]
) -> SafeMarkup:
    """All genes of a section without measurements."""
    values = np.asarray(prediction.values, float)
    heads: list[tuple[str, str | None]] = [("name", None), ("mean", None), ("variance", None)]
    if held_out_pcc:
        heads += [("card expects, DKAN", "PCC on held-out sections"), ("ridge", None)]
    body = []
    for gene, column in zip(prediction.panel.genes, values.T, strict=True):
        known = column[np.isfinite(column)]
        figures = (known.mean(), known.var()) if len(known) else (None, None)
        cells = [_build_value_cell(float(v) if v is not None else None, 3) for v in figures]
        if held_out_pcc:
            cells += [_build_value_cell(v, 2) for v in held_out_pcc.get(gene.symbol, (None, None))]
        name = build_element("td", gene.name, class_="words", data_v=gene.name)
        body.append(build_element("tr", _build_gene_cell(prediction.panel, gene.symbol), name, cells))
    return _build_sortable_table(None, heads, body)


def build_summary_table(summary: ComparisonSummary) -> SafeMarkup:
    """The methods beside each other; the digits are those of `napari-dkan evaluate`."""
    heads = ("PCC-ALL", "PCC-HPG", "PCC-HEG", "PCC-HVG", "MSE", "genes")

    def row(name: str, f: MethodMetrics) -> SafeMarkup:
        values = (f.pcc_all, f.pcc_hpg, f.pcc_heg, f.pcc_hvg, f.mse)
        cells = [build_element("td", format_decimal(v, 4)) for v in values]
        return build_element("tr", build_element("th", name, scope="row"), cells, build_element("td", f.n_genes))

    return build_plain_table(("", *heads), [row(n, f) for n, f in summary.metrics_by_method().items()], "summary")


def build_plain_table(heads: Sequence[str], rows: Sequence[SafeMarkup], kind: str) -> SafeMarkup:
    """A table that is not sorted."""
    head = build_element("thead", build_element("tr", [build_element("th", h, scope="col") for h in heads]))
    return build_element("table", head, build_element("tbody", rows), class_=kind)


def build_key_value_table(entries: Sequence[tuple[str, MarkupChildren]]) -> SafeMarkup:
    """Names and values, those without a value left out."""
    rows = [
        build_element("tr", build_element("th", name, scope="row"), build_element("td", value))
        for name, value in entries
        if value not in (None, "")
    ]
    return build_element("table", build_element("tbody", rows), class_="facts")


def _build_sortable_table(
    over: SafeMarkup | None, heads: Sequence[tuple[str, str | None]], body: Sequence[SafeMarkup]
) -> SafeMarkup:
    titles = [
        build_element("th", head, scope="col", title=title, data_words="" if head == "name" else None)
        for head, title in heads
    ]
    head = build_element("thead", over, build_element("tr", build_element("th", "gene", scope="col"), titles))
    return build_element("table", head, build_element("tbody", body), class_="genes sortable")


def _build_gene_cell(panel: Panel, symbol: str) -> SafeMarkup:
    name = panel.genes[panel.row(symbol)].name if symbol in panel else ""
    return build_element("th", symbol, scope="row", title=name or None, data_v=symbol)


def _build_value_cell(value: CellValue, digits: int, percent: bool = False, first: bool = False) -> SafeMarkup:
    kind = "first" if first else None
    if isinstance(value, str):
        return build_element("td", value, data_v=value.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
    if value is None or value != value:
        return build_element("td", NO_VALUE_TEXT, class_=kind)
    shown = f"{100 * value:.0f} %" if percent else format_decimal(value, digits)
    return build_element("td", shown, class_=kind, data_v=f"{value:.6g}")
