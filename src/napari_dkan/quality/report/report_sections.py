"""Contents of the sections of the report: sentences, tables and figures for the templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...inference.prediction import Prediction
from ..comparison import Comparison
from ..comparison_summary import ComparisonSummary, MethodMetrics
from ..error_regions import ErrorRegion
from ..gene_metrics import GeneMetrics
from ..reliability import Reliability
from .map_figures import (
    MapBackground,
    MapCanvas,
    MapFigure,
    OverviewFigure,
    crosses_path,
    make_overview,
    make_rings,
)
from .map_scales import MapColorScale, fit_error_scale, fit_residual_scale, fit_shared_scale
from .pcc_histogram import PccHistogram, make_pcc_histogram
from .report_tables import PlainTable, format_decimal, format_interval, format_percent, rank_genes

METRICS_EXPLANATION = (
    "Depth-partial PCC: correlation of a gene over the spots after the number of molecules of each "
    "spot is regressed out of measured and predicted values, mean over all genes; a prediction "
    "that only follows tissue density has 0. Ceiling: what a perfect prediction could reach of it, "
    "given the counting noise; share: of that. Deviance: of the raw counts, explained, against the "
    "mean profile of the training sections (a dash where it is not recorded). Depth alone: that "
    "number of molecules as the prediction of every gene. "
    "PCC: Pearson correlation of a gene over the spots. ALL: mean over all genes; HPG, HEG, HVG: "
    "over the 50 best predicted, most expressed and most variable genes of this section. MSE: mean "
    "squared error on the label scale. Ridge is a plain regression on the same image features; "
    "the card's figures are those on sections held out of the training."
)


@dataclass(frozen=True)
class SummarySection:
    """The overview and the verdict; with measurements also the methods and the histogram."""

    overview: OverviewFigure
    verdict: str
    table: PlainTable | None = None
    histogram: PccHistogram | None = None
    hint: str = METRICS_EXPLANATION


def make_summary(
    background: MapBackground, prediction: Prediction, comparison: Comparison | None
) -> SummarySection:
    """Summarize the prediction and, with measurements, the comparison."""
    overview = make_overview(background, prediction.target.spots.xy)
    if comparison is None:
        count = int(prediction.predicted_mask.sum())
        verdict = (
            f"{count:,} {'spots' if prediction.target.grid is None else 'tiles'} and "
            f"{len(prediction.panel)} genes were predicted. Nothing was "
            "measured here, so there is no telling how good the prediction is on this section; "
            "the gene table has what the checkpoint's card expects of each gene."
        )
        return SummarySection(overview, verdict)
    names, title = ("partial", "ridge_partial"), "depth-partial PCC"
    if comparison.reference is None:
        names, title = ("pcc", "ridge_pcc"), "PCC"
    pcc, ridge = (
        np.array([getattr(g, name) for g in comparison.metrics_per_gene]) for name in names
    )
    return SummarySection(
        overview,
        comparison.summary.format_verdict(),
        _make_summary_table(comparison.summary),
        make_pcc_histogram(
            pcc, ridge if comparison.ridge is not None else None, title, comparison.method
        ),
    )


def _make_summary_table(summary: ComparisonSummary) -> PlainTable:
    """The methods below each other, with the digits of `napari-dkan evaluate`."""
    columns: dict[str, Callable[[MethodMetrics], object]] = {
        "PCC-ALL": lambda m: format_decimal(m.pcc_all, 4),
        "PCC-HPG": lambda m: format_decimal(m.pcc_hpg, 4),
        "PCC-HEG": lambda m: format_decimal(m.pcc_heg, 4),
        "PCC-HVG": lambda m: format_decimal(m.pcc_hvg, 4),
        "MSE": lambda m: format_decimal(m.mse, 4),
        "genes": lambda m: m.n_genes,
    }
    if summary.depth_alone is not None:
        columns = {
            "depth-partial PCC": lambda m: format_decimal(m.depth_partial_pcc, 4),
            "share": lambda m: format_percent(m.share_of_attainable),
            "deviance": lambda m: format_decimal(m.deviance_explained, 4),
            **columns,
        }
    rows: list[tuple[object, list[object]]] = [
        (name, [get_cell(metrics) for get_cell in columns.values()])
        for name, metrics in summary.metrics_by_method().items()
    ]
    heads = ("", *columns)
    return PlainTable("summary", heads, rows)


@dataclass(frozen=True)
class GeneMaps:
    """The maps of one gene with a sentence about its metrics."""

    symbol: str
    name: str
    text: str
    figures: list[MapFigure]


@dataclass(frozen=True)
class MapSection:
    """Maps by gene with measurements, predicted maps without."""

    hint: str
    predicted: list[MapFigure]
    genes: list[GeneMaps]


def make_maps(
    canvas: MapCanvas, prediction: Prediction, comparison: Comparison | None, genes: Sequence[str]
) -> MapSection:
    """Lay out the maps of each gene."""
    hint = "The lowest and highest 2 % of the values take the colours at the ends of the scale."
    if comparison is None:
        return MapSection(hint, [_make_predicted_map(canvas, prediction, g) for g in genes], [])
    hint += (
        " Measured and predicted share one scale. In the residual, orange is predicted too high "
        "and blue too low."
    )
    return MapSection(hint, [], [_make_gene_maps(canvas, comparison, g) for g in genes])


def _make_predicted_map(canvas: MapCanvas, prediction: Prediction, symbol: str) -> MapFigure:
    values = np.asarray(prediction.get_gene_values(symbol))
    units = prediction.get_value_units(symbol).splitlines()[0]
    title = f"{symbol}, {prediction.get_value_kind(symbol)}"
    return canvas.make_map(title, values, fit_shared_scale([values], canvas.colormap), units)


def _make_gene_maps(canvas: MapCanvas, comparison: Comparison, symbol: str) -> GeneMaps:
    prediction = comparison.prediction
    name = prediction.panel.genes[prediction.panel.row(symbol)].name
    if symbol not in comparison.panel:
        figure = _make_predicted_map(canvas, prediction, symbol)
        return GeneMaps(symbol, name, "This gene is not measured here.", [figure])
    values, kind = np.asarray(prediction.get_gene_values(symbol)), prediction.get_value_kind(symbol)
    units = prediction.get_value_units(symbol).splitlines()[0]
    column = comparison.panel.row(symbol)
    measured, residual = comparison.measured[:, column], comparison.residual[:, column]
    scale = fit_shared_scale([measured, values], canvas.colormap)
    residual_units = f"{kind} \N{MINUS SIGN} measured, same units"
    figures = [
        canvas.make_map(f"{symbol}, measured", measured, scale, units),
        canvas.make_map(f"{symbol}, {kind}", values, scale, units),
        canvas.make_map(
            f"{symbol}, residual", residual, fit_residual_scale(residual), residual_units
        ),
    ]
    text = _describe_gene_metrics(comparison, comparison.metrics_per_gene[column])
    return GeneMaps(symbol, name, text, figures)


def _describe_gene_metrics(comparison: Comparison, gene: GeneMetrics) -> str:
    if gene.pcc != gene.pcc:
        return "No correlation: measured or predicted is the same at all spots."
    plain = f"PCC {format_decimal(gene.pcc, 2)}"
    if gene.low == gene.low:
        plain += f" (95 % {format_interval(gene.low, gene.high)})"
    if gene.ridge_pcc == gene.ridge_pcc:
        plain += f", ridge {format_decimal(gene.ridge_pcc, 2)}"
    if gene.expected_pcc == gene.expected_pcc:
        plain += f", the card expects {format_decimal(gene.expected_pcc, 2)}"
    place = 1 + [g.symbol for g in rank_genes(comparison)].index(gene.symbol)
    ranked = f"place {place} of {len(comparison.metrics_per_gene)} over {gene.n_spots} spots"
    if comparison.reference is None:
        text = f"{plain}; {ranked}"
    elif not gene.is_judged:
        text = f"It cannot be judged here, because its counts are too few; {plain}"
    else:
        text = f"Depth-partial PCC {format_decimal(gene.partial, 2)}"
        if gene.partial_low == gene.partial_low:
            text += f" (95 % {format_interval(gene.partial_low, gene.partial_high)})"
        text += f" of at most {format_decimal(gene.ceiling, 2)}, {ranked}"
        if gene.ridge_partial == gene.ridge_partial:
            text += f"; ridge {format_decimal(gene.ridge_partial, 2)}"
        if gene.expected_partial == gene.expected_partial:
            text += f"; the card expects {format_decimal(gene.expected_partial, 2)}"
        text += f". With depth included: {plain}"
    return f"{text}. {100 * gene.zeros:.0f} % of the spots have no count of it."


@dataclass(frozen=True)
class ErrorRegionSection:
    """The error of every spot over all genes, and the regions where it is largest."""

    figure: MapFigure
    text: str
    table: PlainTable | None


def make_error_regions(
    canvas: MapCanvas, comparison: Comparison, regions: Sequence[ErrorRegion]
) -> ErrorRegionSection:
    """Lay out the map of the error with its regions."""
    error = (np.asarray(comparison.residual, float) ** 2).mean(axis=1)
    figure = canvas.make_map(
        "Error over all genes",
        error,
        fit_error_scale(error),
        "mean squared error of a spot",
        rings=make_rings(canvas.background, [(r.x, r.y, r.radius) for r in regions]),
    )
    if not regions:
        text = "No neighbourhood of spots is clearly worse than the others."
        return ErrorRegionSection(figure, text, None)
    rows: list[tuple[object, list[object]]] = [
        (
            number,
            [
                f"{r.x:,.0f}, {r.y:,.0f}",
                f"{2 * r.radius * canvas.background.mpp:,.0f}",
                len(r.spot_rows),
                format_decimal(r.mse, 4),
                f"{r.relative_mse:.1f} times",
            ],
        )
        for number, r in enumerate(regions, 1)
    ]
    heads = ("", "x, y (px)", "across (µm)", "spots", "MSE", "the section's average")
    text = "These neighbourhoods of spots have the largest error over all genes, worst first."
    return ErrorRegionSection(figure, text, PlainTable("regions", heads, rows))


@dataclass(frozen=True)
class ReliabilitySection:
    """The reliability of each spot, and the most frequent reasons for a low one."""

    figure: MapFigure
    verdict: str
    levels: str
    reasons: PlainTable | None


def make_reliability(canvas: MapCanvas, reliability: Reliability) -> ReliabilitySection:
    """Lay out the map of the reliability and count its levels and reasons."""
    known = np.isfinite(reliability.score)
    unreliable = np.asarray(reliability.unreliable, bool) & known
    rows = np.flatnonzero(known).tolist()
    count = len(rows)
    n_by_level = Counter(reliability.level(i) for i in rows)
    reasons = Counter(reason for i in rows for reason in reliability.reasons(i)).most_common(6)
    figure = canvas.make_map(
        "Reliability of the prediction",
        np.asarray(reliability.score),
        MapColorScale(canvas.colormap, 0.0, 1.0),
        "score; crosses mark unreliable spots",
        crosses=crosses_path(canvas, unreliable),
    )

    def share(n: int) -> str:
        return f"{n:,} ({100 * n / max(count, 1):.0f} %)"

    levels = ", ".join(
        f"{level} at {share(n_by_level[level])}"
        for level in ("good", "fair", "poor")
        if n_by_level[level]
    )
    return ReliabilitySection(
        figure,
        f"{share(int(unreliable.sum()))} of {count:,} spots are unreliable.",
        f"Reliability is {levels}.",
        PlainTable(
            "regions",
            ("reason", "spots"),
            [(reason, [share(n)]) for reason, n in reasons],
            has_row_heads=False,
        )
        if reasons
        else None,
    )
