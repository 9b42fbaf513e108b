"""Write the report: one self-contained HTML file for screen and paper."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...atomic_write import atomic_write
from ...errors import SpotsError
from ...inference.prediction import Prediction
from ...inference.target import TargetKind
from ...model.checkpoint.checkpoint_card import describe_checkpoint
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...slide import Slide
from ...training.run_provenance import collect_provenance
from ..comparison import Comparison, ErrorRegion, find_error_regions, held_out_pcc_from_card
from ..reliability import Reliability, score_reliability
from ..slide_checks import check_domain_shift
from . import report_sections as sections
from .map_figures import MapCanvas, read_map_background
from .report_sections import build_gene_table, build_key_value_table, build_predicted_table
from .svg_markup import MarkupChildren, SafeMarkup, build_element, concatenate, mark_trusted

COMMON_GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8")
N_CARD_GENES, N_BEST_GENES, N_WORST_GENES = 2, 2, 2


def choose_report_genes(checkpoint: Checkpoint, comparison: Comparison | None) -> tuple[str, ...]:
    """The card's first genes, then those predicted best and worst, so that neither flatters.

    Without measurements the first six of the card, of those everybody asks for, of the panel.
    """
    card = checkpoint.card.get("first_genes", [])
    asked = [g for g in (card if isinstance(card, list) else []) if isinstance(g, str)]
    symbols = comparison.panel.symbols if comparison else checkpoint.panel.symbols
    first = list(dict.fromkeys(g for g in (*asked, *COMMON_GENES, *symbols) if g in symbols))
    if comparison is None:
        return tuple(first[: N_CARD_GENES + N_BEST_GENES + N_WORST_GENES])
    known = sorted((g for g in comparison.metrics_per_gene if g.pcc == g.pcc), key=lambda g: -g.pcc)
    ranked = [g.symbol for g in known]
    chosen = [
        *first[:N_CARD_GENES],
        *ranked[:N_BEST_GENES],
        *ranked[max(len(ranked) - N_WORST_GENES, 0) :],
    ]
    return tuple(dict.fromkeys(chosen))


DISCLAIMER = "Predicted, research only, not for diagnosis"
MIN_SPOT_TO_PITCH = (
    0.72  # of the pitch: spots of their true size are hard to see on a whole section
)


def write_report(
    path: str | Path,
    *,
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    comparison: Comparison | None = None,
    genes: Sequence[str] = (),
    reliability: Reliability | None = None,
    regions: Sequence[ErrorRegion] | None = None,
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
    if not prediction.predicted_mask.any():
        raise SpotsError("Nothing is predicted yet, so there is nothing to report; predict first.")
    rows = prediction.panel.rows(genes or choose_report_genes(checkpoint, comparison))
    symbols = list(dict.fromkeys(prediction.panel.symbols[row] for row in rows))
    canvas = make_map_canvas(slide, checkpoint, prediction)
    far = check_domain_shift(
        checkpoint, prediction.qc_features[prediction.predicted_mask], canvas.background.mpp
    )
    warnings = [note for note in dict.fromkeys((*notes, far)) if note]
    parts: list[SafeMarkup] = [
        _build_header(slide, checkpoint, prediction, comparison, warnings),
        sections.build_summary_section(canvas.background, prediction, comparison),
        sections.build_map_section(canvas, prediction, comparison, symbols),
    ]
    if comparison is not None:
        found = find_error_regions(comparison) if regions is None else regions
        parts.append(sections.build_error_region_section(canvas, comparison, found))
    if reliability is None:
        reliability = score_reliability(
            checkpoint.reference, prediction.qc_features, prediction.tokens
        )
    if len(reliability.score) == len(canvas.positions) and np.isfinite(reliability.score).any():
        parts.append(sections.build_reliability_section(canvas, reliability))
    parts += [
        _build_gene_section(checkpoint, prediction, comparison),
        _build_card_section(checkpoint),
    ]
    parts.append(_build_provenance_section(checkpoint, prediction, command))
    title = comparison.name if comparison else slide.name
    text = _render_page(title, [canvas.draw_shared_defs(), parts])
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")
    return Path(path)


def make_map_canvas(slide: Slide, checkpoint: Checkpoint, prediction: Prediction) -> MapCanvas:
    """Where the spots of a prediction are drawn. Raises SlideError."""
    spots, mpp = prediction.target.spots, float(prediction.provenance["mpp"])
    pitch = spots.pitch_um or checkpoint.spot_pitch_um
    tiles = prediction.target.kind is TargetKind.GRID
    if tiles and prediction.target.grid is not None:
        pitch = prediction.target.grid.pitch_um
    diameter = spots.diameter_um or checkpoint.spot_diameter_um
    um = pitch if tiles else max(diameter, MIN_SPOT_TO_PITCH * pitch)
    ground = read_map_background(slide, spots.xy, 1.5 * pitch / mpp, mpp)
    return MapCanvas(ground, ground.to_drawing(spots.xy), um / mpp * ground.units_per_px, tiles)


def _build_header(
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    comparison: Comparison | None,
    notes: Sequence[str],
) -> SafeMarkup:
    name = comparison.name if comparison else slide.name
    record = prediction.provenance
    what = "Predicted and measured expression" if comparison else "Predicted expression"
    about = (
        f"{slide.label}, {len(prediction.target):,} {_spots_or_tiles(prediction)}, "
        f"{len(prediction.panel)} genes, by the checkpoint {checkpoint.title}. "
        f"Values are {prediction.label_scale.name}."
    )
    warned = [(notes, "notes alarming"), (comparison.caveats if comparison else (), "notes")]
    return build_element(
        "header",
        build_element("p", DISCLAIMER, class_="kind"),
        build_element("h1", f"{what}: {name}"),
        build_element(
            "p", about, f" Predicted {_format_date(record.get('created'))}.", class_="about"
        ),
        [
            build_element("ul", [build_element("li", n) for n in some], class_=kind)
            for some, kind in warned
            if some
        ],
    )


def _build_gene_section(
    checkpoint: Checkpoint, prediction: Prediction, comparison: Comparison | None
) -> SafeMarkup:
    if comparison is None:
        table = build_predicted_table(prediction, held_out_pcc_from_card(checkpoint.card))
        text = "All predicted genes, with their mean and variance over the spots."
    else:
        table = build_gene_table(comparison)
        text = (
            f"All {len(comparison.panel)} genes that are measured and predicted, over "
            f"{len(comparison.spots)} spots, best first. The interval of the PCC comes from "
            "resampling blocks of spots, because neighbours are not independent."
        )
    hint = build_element("span", " Click on a heading to sort.", class_="screen scripted")
    return build_element(
        "section",
        build_element("h2", "Genes"),
        build_element("p", text, hint, class_="hint"),
        build_element("div", table, class_="scroll"),
    )


def _build_card_section(checkpoint: Checkpoint) -> SafeMarkup:
    """All that the checkpoint says of itself; where it lies on this machine is nobody's matter."""
    path = checkpoint.path
    text = describe_checkpoint(replace(checkpoint, path=None if path is None else Path(path.name)))
    return build_element(
        "section",
        build_element("h2", "Checkpoint card"),
        build_element(
            "details", build_element("summary", checkpoint.title), build_element("pre", text)
        ),
    )


def _build_provenance_section(
    checkpoint: Checkpoint, prediction: Prediction, command: str
) -> SafeMarkup:
    record, made = prediction.provenance, collect_provenance(command)
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    entries: list[tuple[str, MarkupChildren]] = [
        ("Slide", record.get("slide")),
        ("Slide fingerprint", record.get("slide_fingerprint")),
        (
            "Pixel size",
            f"{record['mpp']:.4g} µm/px, {_format_mpp_origin(record.get('mpp_origin'))}",
        ),
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
    return build_element(
        "section", build_element("h2", "How it was made"), build_key_value_table(entries)
    )


def _render_page(title: str, body: MarkupChildren) -> str:
    """The whole page. Its policy forbids everything that is not inside it, whatever a browser
    makes of the text of others."""
    style, script = (_read_page_resource(name) for name in ("page.css", "sort.js"))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = build_element(
        "head",
        build_element("meta", charset="utf-8"),
        build_element("meta", http_equiv="Content-Security-Policy", content=policy),
        build_element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        build_element("title", f"{title}: predicted expression"),
        build_element("style", mark_trusted(style)),
    )
    footer = build_element("footer", f"{DISCLAIMER}. Made by napari-dkan.")
    page = build_element("body", body, footer, build_element("script", mark_trusted(script)))
    return (
        concatenate(
            mark_trusted("<!DOCTYPE html>\n"), build_element("html", head, page, lang="en")
        ).html
        + "\n"
    )


def _read_page_resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _spots_or_tiles(prediction: Prediction) -> str:
    return "spots" if prediction.target.grid is None else "tiles"


def _format_date(created: Any) -> str:
    return str(created or "").split("T")[0]


def _format_mpp_origin(origin: Any) -> str:
    return str(origin or "given")
