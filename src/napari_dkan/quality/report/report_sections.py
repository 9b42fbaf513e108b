"""Sections and tables of the report: summary, maps, error regions, reliability, genes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...expression.panel import Panel
from ...inference.prediction import Prediction
from ..comparison import Comparison, ErrorRegion
from ..gene_metrics import ComparisonSummary, GeneMetrics, MethodMetrics
from ..reliability import Reliability
from .map_figures import (
    VIRIDIS,
    MapBackground,
    MapCanvas,
    MapColorScale,
    draw_crosses,
    draw_rings,
    draw_slide_overview,
    fit_error_scale,
    fit_residual_scale,
    fit_shared_scale,
)
from .pcc_histogram import draw_pcc_histogram
from .svg_markup import (
    NO_VALUE_TEXT,
    MarkupChildren,
    SafeMarkup,
    build_element,
    concatenate,
    format_decimal,
)

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
    return (
        NO_VALUE_TEXT
        if g.low != g.low
        else f"{format_decimal(g.low, 2)} to {format_decimal(g.high, 2)}"
    )


GENE_TABLE_COLUMNS = (
    GeneTableColumn("DKAN", "PCC", lambda g: g.pcc, tooltip="Pearson correlation over the spots"),
    GeneTableColumn(
        "DKAN",
        "95 %",
        _format_interval,
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
            [
                _build_value_cell(c.get_value(g), c.digits, c.header == "zeros", c in firsts)
                for c in columns
            ],
        )
        for g in rows
    ]
    groups: list[tuple[str, int]] = []
    for c in columns:
        if groups and groups[-1][0] == c.group:
            groups[-1] = (c.group, groups[-1][1] + 1)
        else:
            groups.append((c.group, 1))
    over = build_element(
        "tr",
        build_element("td"),
        [build_element("th", g, colspan=n, scope="colgroup") for g, n in groups],
    )
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
        body.append(
            build_element("tr", _build_gene_cell(prediction.panel, gene.symbol), name, cells)
        )
    return _build_sortable_table(None, heads, body)


def build_summary_table(summary: ComparisonSummary) -> SafeMarkup:
    """The methods beside each other; the digits are those of `napari-dkan evaluate`."""
    heads = ("PCC-ALL", "PCC-HPG", "PCC-HEG", "PCC-HVG", "MSE", "genes")

    def row(name: str, f: MethodMetrics) -> SafeMarkup:
        values = (f.pcc_all, f.pcc_hpg, f.pcc_heg, f.pcc_hvg, f.mse)
        cells = [build_element("td", format_decimal(v, 4)) for v in values]
        return build_element(
            "tr", build_element("th", name, scope="row"), cells, build_element("td", f.n_genes)
        )

    return build_plain_table(
        ("", *heads), [row(n, f) for n, f in summary.metrics_by_method().items()], "summary"
    )


def build_plain_table(heads: Sequence[str], rows: Sequence[SafeMarkup], kind: str) -> SafeMarkup:
    """A table that is not sorted."""
    head = build_element(
        "thead", build_element("tr", [build_element("th", h, scope="col") for h in heads])
    )
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
        build_element(
            "th", head, scope="col", title=title, data_words="" if head == "name" else None
        )
        for head, title in heads
    ]
    head = build_element(
        "thead", over, build_element("tr", build_element("th", "gene", scope="col"), titles)
    )
    return build_element("table", head, build_element("tbody", body), class_="genes sortable")


def _build_gene_cell(panel: Panel, symbol: str) -> SafeMarkup:
    name = panel.genes[panel.row(symbol)].name if symbol in panel else ""
    return build_element("th", symbol, scope="row", title=name or None, data_v=symbol)


def _build_value_cell(
    value: CellValue, digits: int, percent: bool = False, first: bool = False
) -> SafeMarkup:
    kind = "first" if first else None
    if isinstance(value, str):
        return build_element("td", value, data_v=value.split(" ")[0].replace("\N{MINUS SIGN}", "-"))
    if value is None or value != value:
        return build_element("td", NO_VALUE_TEXT, class_=kind)
    shown = f"{100 * value:.0f} %" if percent else format_decimal(value, digits)
    return build_element("td", shown, class_=kind, data_v=f"{value:.6g}")


METRICS_EXPLANATION = (
    "PCC: Pearson correlation of a gene over the spots. ALL: mean over all genes; HPG, HEG, HVG: "
    "over the 50 best predicted, most expressed and most variable genes of this section. MSE: mean "
    "squared error on the label scale. Ridge is a plain regression on the same image features; "
    "the card's figures are those on sections held out of the training."
)


def build_summary_section(
    ground: MapBackground, prediction: Prediction, comparison: Comparison | None
) -> SafeMarkup:
    """The slide, the verdict, the methods beside each other, and the genes' distribution."""
    picture = draw_slide_overview(ground, prediction.target.spots.xy)
    if comparison is None:
        count = int(prediction.predicted_mask.sum())
        text = (
            f"{count:,} {'spots' if prediction.target.grid is None else 'tiles'} and "
            f"{len(prediction.panel)} genes were predicted. Nothing was "
            "measured here, so there is no telling how good the prediction is on this section; "
            "the gene table has what the checkpoint's card expects of each gene."
        )
        beside = build_element("div", build_element("p", text, class_="verdict"))
        return concatenate(
            build_element("h2", "Summary"), build_element("div", picture, beside, class_="pair")
        )
    found = comparison.summary
    pcc = np.array([g.pcc for g in comparison.metrics_per_gene])
    ridge = np.array([g.ridge_pcc for g in comparison.metrics_per_gene])
    return concatenate(
        build_element("h2", "Summary"),
        build_element("p", found.format_verdict(), class_="verdict"),
        build_element("div", build_summary_table(found), class_="scroll"),
        build_element("p", METRICS_EXPLANATION, class_="hint"),
        build_element(
            "div",
            picture,
            draw_pcc_histogram(pcc, ridge if comparison.ridge is not None else None),
            class_="pair wide",
        ),
    )


def build_map_section(
    canvas: MapCanvas, prediction: Prediction, comparison: Comparison | None, genes: Sequence[str]
) -> SafeMarkup:
    """A row of maps for each gene."""
    hint = "The lowest and highest 2 % of the values take the colours at the ends of the scale."
    if comparison is None:
        drawn = [_draw_predicted_map(canvas, prediction, gene) for gene in genes]
        shown: list[SafeMarkup] = [build_element("div", drawn, class_="maps")]
    else:
        hint += (
            " Measured and predicted share one scale. In the residual, red is predicted too high "
            "and blue too low."
        )
        shown = [_build_gene_maps(canvas, comparison, gene) for gene in genes]
    return concatenate(build_element("h2", "Maps"), build_element("p", hint, class_="hint"), shown)


def _draw_predicted_map(canvas: MapCanvas, prediction: Prediction, symbol: str) -> SafeMarkup:
    values, unit = (
        np.asarray(prediction.get_gene_values(symbol)),
        prediction.get_value_units(symbol).splitlines()[0],
    )
    title = f"{symbol}, {prediction.get_value_kind(symbol)}"
    return canvas.draw_map(title, values, fit_shared_scale([values]), unit)


def _build_gene_maps(canvas: MapCanvas, comparison: Comparison, symbol: str) -> SafeMarkup:
    prediction = comparison.prediction
    values, kind = np.asarray(prediction.get_gene_values(symbol)), prediction.get_value_kind(symbol)
    unit = prediction.get_value_units(symbol).splitlines()[0]
    name = prediction.panel.genes[prediction.panel.row(symbol)].name
    heading = build_element("h3", symbol, build_element("small", f" {name}") if name else None)
    if symbol not in comparison.panel:
        told = "This gene is not measured here."
        drawn = [_draw_predicted_map(canvas, prediction, symbol)]
    else:
        column = comparison.panel.row(symbol)
        measured = comparison.measured[:, column]
        told = _describe_gene_metrics(comparison, comparison.metrics_per_gene[column])
        shared, residual = fit_shared_scale([measured, values]), comparison.residual[:, column]
        drawn = [
            canvas.draw_map(f"{symbol}, measured", measured, shared, unit),
            canvas.draw_map(f"{symbol}, {kind}", values, shared, unit),
            canvas.draw_map(
                f"{symbol}, residual",
                residual,
                fit_residual_scale(residual),
                f"{kind} \N{MINUS SIGN} measured, same units",
            ),
        ]
    return build_element(
        "section",
        heading,
        build_element("p", told),
        build_element("div", drawn, class_="maps"),
        class_="gene",
    )


def _describe_gene_metrics(comparison: Comparison, gene: GeneMetrics) -> str:
    if gene.pcc != gene.pcc:
        return "No correlation: measured or predicted is the same at all spots."
    rank = 1 + sum(g.pcc > gene.pcc for g in comparison.metrics_per_gene)
    said = [f"PCC {format_decimal(gene.pcc, 2)}"]
    if gene.low == gene.low:
        said.append(f" (95 % {format_decimal(gene.low, 2)} to {format_decimal(gene.high, 2)})")
    said.append(f" over {gene.n_spots} spots, place {rank} of {len(comparison.metrics_per_gene)}")
    if gene.ridge_pcc == gene.ridge_pcc:
        said.append(f"; ridge {format_decimal(gene.ridge_pcc, 2)}")
    if gene.expected_pcc == gene.expected_pcc:
        said.append(f"; the card expects {format_decimal(gene.expected_pcc, 2)}")
    return "".join(said) + f". {100 * gene.zeros:.0f} % of the spots have no count of it."


def build_error_region_section(
    canvas: MapCanvas, comparison: Comparison, regions: Sequence[ErrorRegion]
) -> SafeMarkup:
    """The error of every spot over all genes, and where it is worst."""
    error = (np.asarray(comparison.residual, float) ** 2).mean(axis=1)
    rings = draw_rings(canvas, [(r.x, r.y, r.radius) for r in regions])
    drawn = canvas.draw_map(
        "Error over all genes", error, fit_error_scale(error), "mean squared error of a spot", rings
    )
    rows = [
        build_element(
            "tr",
            build_element("th", i, scope="row"),
            build_element("td", f"{r.x:,.0f}, {r.y:,.0f}"),
            build_element("td", f"{2 * r.radius * canvas.background.mpp:,.0f}"),
            build_element("td", len(r.spot_rows)),
            build_element("td", format_decimal(r.mse, 4)),
            build_element("td", f"{r.relative_mse:.1f} times"),
        )
        for i, r in enumerate(regions, 1)
    ]
    heads = ("", "x, y (px)", "across (µm)", "spots", "MSE", "the section's average")
    told = "These neighbourhoods of spots have the largest error over all genes, worst first."
    listed = concatenate(build_element("p", told), build_plain_table(heads, rows, "regions"))
    if not regions:
        listed = build_element("p", "No neighbourhood of spots is clearly worse than the others.")
    return build_element(
        "section",
        build_element("h2", "Where it is worst"),
        build_element("div", drawn, build_element("div", listed), class_="pair"),
        class_="gene",
    )


def build_reliability_section(canvas: MapCanvas, reliability: Reliability) -> SafeMarkup:
    """How far to trust the prediction by what the tiles look like, without measurements."""
    known = np.isfinite(reliability.score)
    unreliable = np.asarray(reliability.unreliable, bool) & known
    rows = np.flatnonzero(known).tolist()
    words = Counter(reliability.level(i) for i in rows)
    reasons = Counter(reason for i in rows for reason in reliability.reasons(i)).most_common(6)
    drawn = canvas.draw_map(
        "Reliability of the prediction",
        np.asarray(reliability.score),
        MapColorScale(VIRIDIS, 0.0, 1.0),
        "score; crosses mark unreliable spots",
        draw_crosses(canvas, unreliable),
    )
    count = len(rows)

    def share(some: int) -> str:
        return f"{some:,} ({100 * some / max(count, 1):.0f} %)"

    kinds = ", ".join(f"{w} at {share(words[w])}" for w in ("good", "fair", "poor") if words[w])
    text = f"{share(int(unreliable.sum()))} of {count:,} spots are unreliable."
    told: list[SafeMarkup] = [
        build_element("p", text, class_="verdict"),
        build_element("p", f"Reliability is {kinds}."),
    ]
    if reasons:
        cells = [
            build_element(
                "tr", build_element("td", r, class_="words"), build_element("td", share(n))
            )
            for r, n in reasons
        ]
        told.append(build_plain_table(("reason", "spots"), cells, "regions"))
    return build_element(
        "section",
        build_element("h2", "How far to trust it"),
        build_element("div", drawn, build_element("div", told), class_="pair"),
        class_="gene",
    )
