"""The report: one HTML file that needs nothing else, on a screen or on paper."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SpotsError
from ...files import written_whole
from ...inference.prediction import Prediction
from ...inference.target import Kind
from ...model.card import describe
from ...model.checkpoint import Checkpoint
from ...slide import Slide
from ...training.fingerprint import provenance
from ..compare import Comparison, expected_pcc
from ..regions import Region, worst_regions
from ..reliability import Reliability, judge
from ..slide_check import check_slide
from . import sections
from .choice import default_genes
from .ground import ground_of
from .maps import Canvas
from .markup import Children, Markup, joined, tag, verbatim
from .tables import facts, gene_table, predicted_table

KIND = "Predicted, research only, not for diagnosis"
LEAST_SPOT = 0.72  # of the pitch: spots of their true size are hard to see on a whole section


def write_report(
    path: str | Path,
    *,
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    comparison: Comparison | None = None,
    genes: Sequence[str] = (),
    reliability: Reliability | None = None,
    regions: Sequence[Region] | None = None,
    notes: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Write the page and return its path.

    prediction : at the spots of the comparison where there is one. genes : to be shown as maps,
    by symbol or alias; none takes `choice.default_genes`. reliability : of these spots, None
    judges them. regions : None finds the worst ones. notes : warnings on top, such as of a
    bad registration. command : that made the page; without private paths.

    Raises SpotsError for an unknown gene or an empty prediction, SlideError when the slide cannot
    be read, OutputError when the page cannot be written; an older page then stays.
    """
    if comparison is not None:
        prediction = comparison.prediction
    if not prediction.done.any():
        raise SpotsError("Nothing is predicted yet, so there is nothing to report; predict first.")
    rows = prediction.panel.rows(genes or default_genes(checkpoint, comparison))
    symbols = list(dict.fromkeys(prediction.panel.symbols[row] for row in rows))
    canvas = canvas_of(slide, checkpoint, prediction)
    far = check_slide(checkpoint, prediction.evidence[prediction.done], canvas.ground.mpp)
    warnings = [note for note in dict.fromkeys((*notes, far)) if note]
    parts: list[Markup] = [
        _head(slide, checkpoint, prediction, comparison, warnings),
        sections.summary(canvas.ground, prediction, comparison),
        sections.maps(canvas, prediction, comparison, symbols),
    ]
    if comparison is not None:
        found = worst_regions(comparison) if regions is None else regions
        parts.append(sections.worst(canvas, comparison, found))
    if reliability is None:
        reliability = judge(checkpoint.reference, prediction.evidence, prediction.tokens)
    if len(reliability.score) == len(canvas.at) and np.isfinite(reliability.score).any():
        parts.append(sections.reliability(canvas, reliability))
    parts += [_genes(checkpoint, prediction, comparison), _card(checkpoint)]
    parts.append(_made(checkpoint, prediction, command))
    title = comparison.name if comparison else slide.name
    text = _document(title, [canvas.defined(), parts])
    with written_whole(path) as file:
        file.write_text(text, encoding="utf-8")
    return Path(path)


def canvas_of(slide: Slide, checkpoint: Checkpoint, prediction: Prediction) -> Canvas:
    """Where the spots of a prediction are drawn. Raises SlideError."""
    spots, mpp = prediction.target.spots, float(prediction.provenance["mpp"])
    pitch = spots.pitch_um or checkpoint.spot_pitch_um
    tiles = prediction.target.kind is Kind.GRID
    if tiles and prediction.target.grid is not None:
        pitch = prediction.target.grid.pitch_um
    diameter = spots.diameter_um or checkpoint.spot_diameter_um
    um = pitch if tiles else max(diameter, LEAST_SPOT * pitch)
    ground = ground_of(slide, spots.xy, 1.5 * pitch / mpp, mpp)
    return Canvas(ground, ground.at(spots.xy), um / mpp * ground.scale, tiles)


def _head(
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    comparison: Comparison | None,
    notes: Sequence[str],
) -> Markup:
    name = comparison.name if comparison else slide.name
    record = prediction.provenance
    what = "Predicted and measured expression" if comparison else "Predicted expression"
    about = (
        f"{slide.label}, {len(prediction.target):,} {_places(prediction)}, "
        f"{len(prediction.panel)} genes, by the checkpoint {checkpoint.title}. "
        f"Values are {prediction.label_scale.name}."
    )
    warned = [(notes, "notes alarming"), (comparison.notes if comparison else (), "notes")]
    return tag(
        "header",
        tag("p", KIND, class_="kind"),
        tag("h1", f"{what}: {name}"),
        tag("p", about, f" Predicted {_day(record.get('created'))}.", class_="about"),
        [tag("ul", [tag("li", n) for n in some], class_=kind) for some, kind in warned if some],
    )


def _genes(checkpoint: Checkpoint, prediction: Prediction, comparison: Comparison | None) -> Markup:
    if comparison is None:
        table = predicted_table(prediction, expected_pcc(checkpoint.card))
        text = "All predicted genes, with their mean and variance over the spots."
    else:
        table = gene_table(comparison)
        text = (
            f"All {len(comparison.panel)} genes that are measured and predicted, over "
            f"{len(comparison.spots)} spots, best first. The interval of the PCC comes from "
            "resampling blocks of spots, because neighbours are not independent."
        )
    hint = tag("span", " Click on a heading to sort.", class_="screen scripted")
    return tag(
        "section",
        tag("h2", "Genes"),
        tag("p", text, hint, class_="hint"),
        tag("div", table, class_="scroll"),
    )


def _card(checkpoint: Checkpoint) -> Markup:
    """All that the checkpoint says of itself; where it lies on this machine is nobody's matter."""
    path = checkpoint.path
    text = describe(replace(checkpoint, path=None if path is None else Path(path.name)))
    return tag(
        "section",
        tag("h2", "Checkpoint card"),
        tag("details", tag("summary", checkpoint.title), tag("pre", text)),
    )


def _made(checkpoint: Checkpoint, prediction: Prediction, command: str) -> Markup:
    record, made = prediction.provenance, provenance(command)
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    entries: list[tuple[str, Children]] = [
        ("Slide", record.get("slide")),
        ("Slide fingerprint", record.get("slide_fingerprint")),
        ("Pixel size", f"{record['mpp']:.4g} µm/px, {_words(record.get('mpp_origin'))}"),
        ("Checkpoint", checkpoint.title),
        ("Checkpoint SHA-256", checkpoint.sha256),
        ("Label scale", prediction.label_scale.name),
        ("Tile encoder", record.get("encoder")),
        ("Patch", f"{record.get('patch_um')} µm"),
        ("Spots apart", f"{record.get('pitch_um')} µm"),
        (
            "Where",
            {"array": "spots of an array", "grid": "tiles of a grid"}.get(
                str(record.get("where")), "single points"
            ),
        ),
        ("Device", record.get("device")),
        ("Predicted", record.get("created")),
        ("Page written", made["date"]),
        ("Command", command),
        ("Versions", f"napari-dkan {made['napari_dkan']}, Python {made['python']}, {packages}"),
        ("Machine", made["machine"]),
    ]
    return tag("section", tag("h2", "How it was made"), facts(entries))


def _document(title: str, body: Children) -> str:
    """The whole page. Its policy forbids everything that is not inside it, whatever a browser
    makes of the text of others."""
    style, script = (_own(name) for name in ("page.css", "sort.js"))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}: predicted expression"),
        tag("style", verbatim(style)),
    )
    footer = tag("footer", f"{KIND}. Made by napari-dkan.")
    page = tag("body", body, footer, tag("script", verbatim(script)))
    return joined(verbatim("<!DOCTYPE html>\n"), tag("html", head, page, lang="en")).text + "\n"


def _own(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _places(prediction: Prediction) -> str:
    return "spots" if prediction.target.grid is None else "tiles"


def _day(created: Any) -> str:
    return str(created or "").split("T")[0]


def _words(origin: Any) -> str:
    return str(origin or "given")
