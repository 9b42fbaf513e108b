"""The parts of the page about the section: summary, maps, worst regions, reliability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...inference.prediction import Prediction
from ..compare import Comparison
from ..gene_table import GeneMetrics
from ..regions import ErrorRegion
from ..reliability import Reliability
from .colours import VIRIDIS, MapColorScale, fit_error_scale, fit_residual_scale, fit_shared_scale
from .ground import MapBackground
from .maps import MapCanvas, draw_rings, draw_crosses, draw_slide_overview
from .markup import SafeMarkup, concatenate, format_decimal, build_element
from .plots import draw_pcc_histogram
from .tables import build_plain_table, build_summary_table

METRICS_EXPLANATION = (
    "PCC: Pearson correlation of a gene over the spots. ALL: mean over all genes; HPG, HEG, HVG: "
    "over the 50 best predicted, most expressed and most variable genes of this section. MSE: mean "
    "squared error on the label scale. Ridge is a plain regression on the same image features; "
    "the card's figures are those on sections held out of the training."
)


def build_summary_section(ground: MapBackground, prediction: Prediction, comparison: Comparison | None) -> SafeMarkup:
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
        return concatenate(build_element("h2", "Summary"), build_element("div", picture, beside, class_="pair"))
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
    values, unit = np.asarray(prediction.get_gene_values(symbol)), prediction.get_value_units(symbol).splitlines()[0]
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


def build_error_region_section(canvas: MapCanvas, comparison: Comparison, regions: Sequence[ErrorRegion]) -> SafeMarkup:
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
    told: list[SafeMarkup] = [build_element("p", text, class_="verdict"), build_element("p", f"Reliability is {kinds}.")]
    if reasons:
        cells = [build_element("tr", build_element("td", r, class_="words"), build_element("td", share(n))) for r, n in reasons]
        told.append(build_plain_table(("reason", "spots"), cells, "regions"))
    return build_element(
        "section",
        build_element("h2", "How far to trust it"),
        build_element("div", drawn, build_element("div", told), class_="pair"),
        class_="gene",
    )
