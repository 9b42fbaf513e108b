"""The parts of the page about the section: summary, maps, worst regions, reliability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...inference.prediction import Prediction
from ..compare import Comparison
from ..gene_table import GeneFigures
from ..regions import Region
from ..reliability import Reliability
from .colours import VALUES, Scale, error_scale, residual_scale, shared_scale
from .ground import Ground
from .maps import Canvas, circles, crosses, overview
from .markup import Markup, joined, number, tag
from .plots import distribution
from .tables import plain_table, summary_table

EXPLAINED = (
    "PCC: Pearson correlation of a gene over the spots. ALL: mean over all genes; HPG, HEG, HVG: "
    "over the 50 best predicted, most expressed and most variable genes of this section. MSE: mean "
    "squared error on the label scale. Ridge is a plain regression on the same image features; "
    "the card's figures are those on sections held out of the training."
)


def summary(ground: Ground, prediction: Prediction, comparison: Comparison | None) -> Markup:
    """The slide, the verdict, the methods beside each other, and the genes' distribution."""
    picture = overview(ground, prediction.target.spots.xy)
    if comparison is None:
        count = int(prediction.done.sum())
        text = (
            f"{count:,} {'spots' if prediction.target.grid is None else 'tiles'} and "
            f"{len(prediction.panel)} genes were predicted. Nothing was "
            "measured here, so there is no telling how good the prediction is on this section; "
            "the gene table has what the checkpoint's card expects of each gene."
        )
        beside = tag("div", tag("p", text, class_="verdict"))
        return joined(tag("h2", "Summary"), tag("div", picture, beside, class_="pair"))
    found = comparison.summary
    pcc = np.array([g.pcc for g in comparison.table])
    ridge = np.array([g.ridge_pcc for g in comparison.table])
    return joined(
        tag("h2", "Summary"),
        tag("p", found.sentence(), class_="verdict"),
        tag("div", summary_table(found), class_="scroll"),
        tag("p", EXPLAINED, class_="hint"),
        tag(
            "div",
            picture,
            distribution(pcc, ridge if comparison.ridge is not None else None),
            class_="pair wide",
        ),
    )


def maps(
    canvas: Canvas, prediction: Prediction, comparison: Comparison | None, genes: Sequence[str]
) -> Markup:
    """A row of maps for each gene."""
    hint = "The lowest and highest 2 % of the values take the colours at the ends of the scale."
    if comparison is None:
        drawn = [_predicted(canvas, prediction, gene) for gene in genes]
        shown: list[Markup] = [tag("div", drawn, class_="maps")]
    else:
        hint += (
            " Measured and predicted share one scale. In the residual, red is predicted too high "
            "and blue too low."
        )
        shown = [_gene(canvas, comparison, gene) for gene in genes]
    return joined(tag("h2", "Maps"), tag("p", hint, class_="hint"), shown)


def _predicted(canvas: Canvas, prediction: Prediction, symbol: str) -> Markup:
    values, unit = np.asarray(prediction.gene(symbol)), prediction.units(symbol).splitlines()[0]
    title = f"{symbol}, {prediction.kind(symbol)}"
    return canvas.map(title, values, shared_scale([values]), unit)


def _gene(canvas: Canvas, comparison: Comparison, symbol: str) -> Markup:
    prediction = comparison.prediction
    values, kind = np.asarray(prediction.gene(symbol)), prediction.kind(symbol)
    unit = prediction.units(symbol).splitlines()[0]
    name = prediction.panel.genes[prediction.panel.row(symbol)].name
    heading = tag("h3", symbol, tag("small", f" {name}") if name else None)
    if symbol not in comparison.panel:
        told = "This gene is not measured here."
        drawn = [_predicted(canvas, prediction, symbol)]
    else:
        column = comparison.panel.row(symbol)
        measured = comparison.measured[:, column]
        told = _figures(comparison, comparison.table[column])
        shared, residual = shared_scale([measured, values]), comparison.residual[:, column]
        drawn = [
            canvas.map(f"{symbol}, measured", measured, shared, unit),
            canvas.map(f"{symbol}, {kind}", values, shared, unit),
            canvas.map(
                f"{symbol}, residual",
                residual,
                residual_scale(residual),
                f"{kind} \N{MINUS SIGN} measured, same units",
            ),
        ]
    return tag(
        "section",
        heading,
        tag("p", told),
        tag("div", drawn, class_="maps"),
        class_="gene",
    )


def _figures(comparison: Comparison, gene: GeneFigures) -> str:
    if gene.pcc != gene.pcc:
        return "No correlation: measured or predicted is the same at all spots."
    rank = 1 + sum(g.pcc > gene.pcc for g in comparison.table)
    said = [f"PCC {number(gene.pcc, 2)}"]
    if gene.low == gene.low:
        said.append(f" (95 % {number(gene.low, 2)} to {number(gene.high, 2)})")
    said.append(f" over {gene.spots} spots, place {rank} of {len(comparison.table)}")
    if gene.ridge_pcc == gene.ridge_pcc:
        said.append(f"; ridge {number(gene.ridge_pcc, 2)}")
    if gene.expected_pcc == gene.expected_pcc:
        said.append(f"; the card expects {number(gene.expected_pcc, 2)}")
    return "".join(said) + f". {100 * gene.zeros:.0f} % of the spots have no count of it."


def worst(canvas: Canvas, comparison: Comparison, regions: Sequence[Region]) -> Markup:
    """The error of every spot over all genes, and where it is worst."""
    error = (np.asarray(comparison.residual, float) ** 2).mean(axis=1)
    rings = circles(canvas, [(r.x, r.y, r.radius) for r in regions])
    drawn = canvas.map(
        "Error over all genes", error, error_scale(error), "mean squared error of a spot", rings
    )
    rows = [
        tag(
            "tr",
            tag("th", i, scope="row"),
            tag("td", f"{r.x:,.0f}, {r.y:,.0f}"),
            tag("td", f"{2 * r.radius * canvas.ground.mpp:,.0f}"),
            tag("td", len(r.rows)),
            tag("td", number(r.mse, 4)),
            tag("td", f"{r.times_average:.1f} times"),
        )
        for i, r in enumerate(regions, 1)
    ]
    heads = ("", "x, y (px)", "across (µm)", "spots", "MSE", "the section's average")
    told = "These neighbourhoods of spots have the largest error over all genes, worst first."
    listed = joined(tag("p", told), plain_table(heads, rows, "regions"))
    if not regions:
        listed = tag("p", "No neighbourhood of spots is clearly worse than the others.")
    return tag(
        "section",
        tag("h2", "Where it is worst"),
        tag("div", drawn, tag("div", listed), class_="pair"),
        class_="gene",
    )


def reliability(canvas: Canvas, found: Reliability) -> Markup:
    """How far to trust the prediction by what the tiles look like, without measurements."""
    known = np.isfinite(found.score)
    unreliable = np.asarray(found.unreliable, bool) & known
    rows = np.flatnonzero(known).tolist()
    words = Counter(found.word(i) for i in rows)
    reasons = Counter(reason for i in rows for reason in found.reasons(i)).most_common(6)
    drawn = canvas.map(
        "Reliability of the prediction",
        np.asarray(found.score),
        Scale(VALUES, 0.0, 1.0),
        "score; crosses mark unreliable spots",
        crosses(canvas, unreliable),
    )
    count = len(rows)

    def share(some: int) -> str:
        return f"{some:,} ({100 * some / max(count, 1):.0f} %)"

    kinds = ", ".join(f"{w} at {share(words[w])}" for w in ("good", "fair", "poor") if words[w])
    text = f"{share(int(unreliable.sum()))} of {count:,} spots are unreliable."
    told: list[Markup] = [tag("p", text, class_="verdict"), tag("p", f"Reliability is {kinds}.")]
    if reasons:
        cells = [tag("tr", tag("td", r, class_="words"), tag("td", share(n))) for r, n in reasons]
        told.append(plain_table(("reason", "spots"), cells, "regions"))
    return tag(
        "section",
        tag("h2", "How far to trust it"),
        tag("div", drawn, tag("div", told), class_="pair"),
        class_="gene",
    )
