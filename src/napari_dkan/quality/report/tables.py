"""Tables of the page; what the script sorts by stands in ``data-v``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...expression.panel import Panel
from ...inference.prediction import Prediction
from ..compare import Comparison
from ..gene_table import GeneFigures, MethodFigures, Summary
from .markup import NOTHING, Children, Markup, number, tag

Value = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column of a table of genes. group : what stands over it and its neighbours."""

    group: str
    head: str
    of: Callable[[GeneFigures], Value]
    digits: int = 2
    title: str = ""


def _interval(g: GeneFigures) -> str:
    return NOTHING if g.low != g.low else f"{number(g.low, 2)} to {number(g.high, 2)}"


MEASURED_COLUMNS = (
    Column("DKAN", "PCC", lambda g: g.pcc, title="Pearson correlation over the spots"),
    Column("DKAN", "95 %", _interval, title="interval of the PCC over resampled blocks of spots"),
    Column("DKAN", "Spearman", lambda g: g.spearman),
    Column("DKAN", "MSE", lambda g: g.mse, 3, "mean squared error"),
    Column("ridge", "PCC", lambda g: g.ridge_pcc),
    Column("ridge", "Spearman", lambda g: g.ridge_spearman),
    Column("ridge", "MSE", lambda g: g.ridge_mse, 3),
    Column("card expects", "DKAN", lambda g: g.expected_pcc, title="PCC on held-out sections"),
    Column("card expects", "ridge", lambda g: g.expected_ridge_pcc),
    Column("measured", "mean", lambda g: g.mean),
    Column("measured", "variance", lambda g: g.variance, 3),
    Column("measured", "zeros", lambda g: g.zeros, title="share of spots without a count"),
    Column("predicted", "mean", lambda g: g.predicted_mean),
    Column("predicted", "variance", lambda g: g.predicted_variance, 3),
)


def gene_table(comparison: Comparison) -> Markup:
    """All genes that are measured and predicted, best predicted first."""
    rows = sorted(comparison.table, key=lambda g: (g.pcc != g.pcc, -g.pcc))
    columns: tuple[Column, ...] = MEASURED_COLUMNS
    if comparison.ridge is None:
        columns = tuple(c for c in columns if c.group != "ridge")
    if not comparison.expected:
        columns = tuple(c for c in columns if c.group != "card expects")
    firsts = [c for i, c in enumerate(columns) if not i or columns[i - 1].group != c.group]
    body = [
        tag(
            "tr",
            _name(comparison.panel, g.symbol),
            [_cell(c.of(g), c.digits, c.head == "zeros", c in firsts) for c in columns],
        )
        for g in rows
    ]
    groups: list[tuple[str, int]] = []
    for c in columns:
        if groups and groups[-1][0] == c.group:
            groups[-1] = (c.group, groups[-1][1] + 1)
        else:
            groups.append((c.group, 1))
    over = tag("tr", tag("td"), [tag("th", g, colspan=n, scope="colgroup") for g, n in groups])
    return _sortable(over, [(c.head, c.title or None) for c in columns], body)


def predicted_table(
    prediction: Prediction, expected: Mapping[str, tuple[float | None, float | None]]
) -> Markup:
    """All genes of a section without measurements."""
    values = np.asarray(prediction.values, float)
    heads: list[tuple[str, str | None]] = [("name", None), ("mean", None), ("variance", None)]
    if expected:
        heads += [("card expects, DKAN", "PCC on held-out sections"), ("ridge", None)]
    body = []
    for gene, column in zip(prediction.panel.genes, values.T, strict=True):
        known = column[np.isfinite(column)]
        figures = (known.mean(), known.var()) if len(known) else (None, None)
        cells = [_cell(float(v) if v is not None else None, 3) for v in figures]
        if expected:
            cells += [_cell(v, 2) for v in expected.get(gene.symbol, (None, None))]
        name = tag("td", gene.name, class_="words", data_v=gene.name)
        body.append(tag("tr", _name(prediction.panel, gene.symbol), name, cells))
    return _sortable(None, heads, body)


def summary_table(summary: Summary) -> Markup:
    """The methods beside each other; the digits are those of `napari-dkan evaluate`."""
    heads = ("PCC-ALL", "PCC-HPG", "PCC-HEG", "PCC-HVG", "MSE", "genes")

    def row(name: str, f: MethodFigures) -> Markup:
        values = (f.pcc_all, f.pcc_hpg, f.pcc_heg, f.pcc_hvg, f.mse)
        cells = [tag("td", number(v, 4)) for v in values]
        return tag("tr", tag("th", name, scope="row"), cells, tag("td", f.genes))

    return plain_table(("", *heads), [row(n, f) for n, f in summary.methods().items()], "summary")


def plain_table(heads: Sequence[str], rows: Sequence[Markup], kind: str) -> Markup:
    """A table that is not sorted."""
    head = tag("thead", tag("tr", [tag("th", h, scope="col") for h in heads]))
    return tag("table", head, tag("tbody", rows), class_=kind)


def facts(entries: Sequence[tuple[str, Children]]) -> Markup:
    """Names and values, those without a value left out."""
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", value))
        for name, value in entries
        if value not in (None, "")
    ]
    return tag("table", tag("tbody", rows), class_="facts")


def _sortable(
    over: Markup | None, heads: Sequence[tuple[str, str | None]], body: Sequence[Markup]
) -> Markup:
    titles = [
        tag("th", head, scope="col", title=title, data_words="" if head == "name" else None)
        for head, title in heads
    ]
    head = tag("thead", over, tag("tr", tag("th", "gene", scope="col"), titles))
    return tag("table", head, tag("tbody", body), class_="genes sortable")


def _name(panel: Panel, symbol: str) -> Markup:
    name = panel.genes[panel.row(symbol)].name if symbol in panel else ""
    return tag("th", symbol, scope="row", title=name or None, data_v=symbol)


def _cell(value: Value, digits: int, percent: bool = False, first: bool = False) -> Markup:
    kind = "first" if first else None
    if isinstance(value, str):
        return tag("td", value, data_v=value.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
    if value is None or value != value:
        return tag("td", NOTHING, class_=kind)
    shown = f"{100 * value:.0f} %" if percent else number(value, digits)
    return tag("td", shown, class_=kind, data_v=f"{value:.6g}")
