"""Write the report of a section as one HTML file for screen and print."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic_write import atomic_write
from ...errors import SpotsError
from ...expression.readers.read_account import ReadAccount
from ...inference.map_colors import DEFAULT_COLORMAP
from ...inference.prediction import Prediction
from ...inference.slide_account import account_for_slide
from ...inference.target import TargetKind
from ...model.checkpoint.checkpoint_card import describe_checkpoint
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.methods.method_configs import TITLES
from ...slide import Slide
from ...training.run_provenance import collect_provenance
from ..comparison import Comparison, held_out_pcc_from_card
from ..error_regions import ErrorRegion, find_error_regions
from ..reliability import Reliability, score_reliability
from ..slide_checks import check_domain_shift
from .map_figures import MapCanvas, read_map_background
from .map_scales import COLOR_BAR_HEIGHT, MAP_WIDTH
from .report_sections import make_error_regions, make_maps, make_reliability, make_summary
from .report_tables import format_decimal, make_gene_table, make_predicted_table, rank_genes

if TYPE_CHECKING:
    from jinja2 import Environment

COMMON_GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8")
N_CARD_GENES, N_BEST_GENES, N_WORST_GENES = 2, 2, 2


def choose_report_genes(checkpoint: Checkpoint, comparison: Comparison | None) -> tuple[str, ...]:
    """Choose the genes to map: the first of the card, then the best and worst predicted.

    Without measurements the first six of the card, of common genes, and of the panel.
    """
    card = checkpoint.card.get("first_genes", [])
    card_genes = [g for g in (card if isinstance(card, list) else []) if isinstance(g, str)]
    symbols = comparison.panel.symbols if comparison else checkpoint.panel.symbols
    first = list(dict.fromkeys(g for g in (*card_genes, *COMMON_GENES, *symbols) if g in symbols))
    if comparison is None:
        return tuple(first[: N_CARD_GENES + N_BEST_GENES + N_WORST_GENES])
    ranked = [g.symbol for g in rank_genes(comparison) if g.is_judged and g.pcc == g.pcc]
    chosen = [
        *first[:N_CARD_GENES],
        *ranked[:N_BEST_GENES],
        *ranked[max(len(ranked) - N_WORST_GENES, 0) :],
    ]
    return tuple(dict.fromkeys(chosen))


DISCLAIMER = "Predicted, research only, not for diagnosis"
# Drawn spots have at least this share of the pitch: true sizes are hard to see on a whole section.
MIN_SPOT_TO_PITCH = 0.72


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
    warnings: Sequence[str] = (),
    command: str = "",
    colormap: str = DEFAULT_COLORMAP,
) -> Path:
    """Write the page and return its path.

    Parameters
    ----------
    prediction : Prediction
        Used where there is no comparison, which has its own.
    genes : sequence of str
        Genes to map, by symbol or alias; none takes `choose_report_genes`.
    reliability : Reliability, optional
        Of the spots; None computes it.
    regions : sequence of ErrorRegion, optional
        None finds the worst ones.
    warnings : sequence of str
        Warnings on top of the page, such as of a bad registration.
    command : str
        Command that makes the page, without private paths.
    colormap : str
        Of the maps of values, by its name in matplotlib.

    Raises
    ------
    SpotsError
        If a gene is unknown or nothing is predicted.
    SlideError
        If the slide cannot be read.
    OutputError
        If the page cannot be written; an older page then stays.
    """
    if comparison is not None:
        prediction = comparison.prediction
    if not prediction.predicted_mask.any():
        raise SpotsError("Nothing is predicted yet, so there is nothing to report; predict first.")
    rows = prediction.panel.rows(genes or choose_report_genes(checkpoint, comparison))
    symbols = list(dict.fromkeys(prediction.panel.symbols[row] for row in rows))
    canvas = make_map_canvas(slide, checkpoint, prediction, colormap)
    domain_shift = check_domain_shift(
        checkpoint, prediction.qc_features[prediction.predicted_mask], canvas.background.mpp
    )
    shallow = None if comparison is None else comparison.shallow
    error_regions = reliability_section = None
    if comparison is not None:
        worst = find_error_regions(comparison) if regions is None else regions
        error_regions = make_error_regions(canvas, comparison, worst)
    if reliability is None:
        reliability = score_reliability(
            checkpoint.reference, prediction.qc_features, prediction.tokens
        )
    if len(reliability.score) == len(canvas.positions) and np.isfinite(reliability.score).any():
        reliability_section = make_reliability(canvas, reliability)
    text = _render_page(
        title=comparison.name if comparison else slide.name,
        canvas=canvas,
        header=_make_header(slide, checkpoint, prediction, comparison)
        | {"warnings": [w for w in dict.fromkeys((shallow, *warnings, domain_shift)) if w]},
        summary=make_summary(canvas.background, prediction, comparison),
        maps=make_maps(canvas, prediction, comparison, symbols),
        error_regions=error_regions,
        reliability=reliability_section,
        genes=_make_gene_section(checkpoint, prediction, comparison),
        checkpoint_title=checkpoint.title,
        checkpoint_card=_describe_card(checkpoint),
        provenance=_list_provenance(slide, checkpoint, prediction, comparison, command),
    )
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")
    return Path(path)


def make_map_canvas(
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    colormap: str = DEFAULT_COLORMAP,
) -> MapCanvas:
    """Return where the spots of a prediction are drawn.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    spots, mpp = prediction.target.spots, float(prediction.provenance["mpp"])
    pitch = spots.pitch_um or checkpoint.spot_pitch_um
    is_tiled = prediction.target.kind is TargetKind.GRID
    if is_tiled and prediction.target.grid is not None:
        pitch = prediction.target.grid.pitch_um
    diameter = spots.diameter_um or checkpoint.spot_diameter_um
    um = pitch if is_tiled else max(diameter, MIN_SPOT_TO_PITCH * pitch)
    background = read_map_background(slide, spots.xy, 1.5 * pitch / mpp, mpp)
    size = um / mpp * background.units_per_px
    return MapCanvas(background, background.to_drawing(spots.xy), size, is_tiled, colormap)


def _make_header(
    slide: Slide, checkpoint: Checkpoint, prediction: Prediction, comparison: Comparison | None
) -> dict[str, Any]:
    name = comparison.name if comparison else slide.name
    contents = "Predicted and measured expression" if comparison else "Predicted expression"
    unit = "spots" if prediction.target.grid is None else "tiles"
    date = str(prediction.provenance.get("created") or "").split("T")[0]
    return {
        "heading": f"{contents}: {name}",
        "text": f"{slide.label}, {len(prediction.target):,} {unit}, "
        f"{len(prediction.panel)} genes, by the checkpoint {checkpoint.title}. "
        f"Values are {prediction.label_scale.name}. Predicted {date}.",
        "caveats": comparison.caveats if comparison else (),
    }


def _make_gene_section(
    checkpoint: Checkpoint, prediction: Prediction, comparison: Comparison | None
) -> dict[str, Any]:
    if comparison is None:
        text = "All predicted genes, with their mean and variance over the spots."
        method = checkpoint.network.config.method
        held_out_pcc = held_out_pcc_from_card(checkpoint.card, method=method)
        table = make_predicted_table(prediction, held_out_pcc, TITLES[method])
        return {"text": text, "table": table}
    text = (
        f"All {len(comparison.panel)} genes that are measured and predicted, over "
        f"{len(comparison.spots)} spots, best first. The interval of the PCC comes from "
        "resampling blocks of spots, because neighbours are not independent."
    )
    return {"text": text, "table": make_gene_table(comparison)}


def _describe_card(checkpoint: Checkpoint) -> str:
    """The card without the folder of the checkpoint, which is private."""
    path = checkpoint.path
    return describe_checkpoint(replace(checkpoint, path=None if path is None else Path(path.name)))


def _list_provenance(
    slide: Slide,
    checkpoint: Checkpoint,
    prediction: Prediction,
    comparison: Comparison | None,
    command: str,
) -> list[tuple[str, Any]]:
    """Names and values; entries without a value are left out."""
    record, run = prediction.provenance, collect_provenance(command)
    origin = str(record.get("mpp_origin") or "given")
    packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items())
    targets = {"array": "spots of an array", "grid": "tiles of a grid"}
    account = ReadAccount(slide.label) if comparison is None else comparison.account
    account = account_for_slide(account, slide, record["mpp"], origin)
    entries = [
        ("Slide", record.get("slide")),
        ("Slide fingerprint", record.get("slide_fingerprint")),
        ("Pixel size", f"{record['mpp']:.4g} µm/px, {origin}"),
        ("Read" if comparison is None else "Measured section", "; ".join(account.lines())),
        ("Checkpoint", checkpoint.title),
        ("Checkpoint SHA-256", checkpoint.sha256),
        ("Label scale", prediction.label_scale.name),
        ("Tile encoder", record.get("encoder")),
        ("Patch", f"{record.get('patch_um')} µm"),
        ("Spots apart", f"{record.get('pitch_um')} µm"),
        ("Where", targets.get(str(record.get("where")), "single points")),
        ("Device", record.get("device")),
        ("Predicted", record.get("created")),
        ("Page written", run["date"]),
        ("Command", command),
        ("Versions", f"napari-dkan {run['napari_dkan']}, Python {run['python']}, {packages}"),
        ("Machine", run["machine"]),
    ]
    return [(name, value) for name, value in entries if value not in (None, "")]


def _render_page(**content: Any) -> str:
    """Render the page; its content security policy allows only its own style and script."""
    from markupsafe import Markup

    templates = files(__package__) / "templates"
    style, script = (
        (templates / name).read_text(encoding="utf-8") for name in ("page.css", "sort.js")
    )
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template("report.html.j2")
    return page.render(
        content,
        disclaimer=DISCLAIMER,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
    )


@cache
def _environment() -> Environment:
    """Templates that escape every text: names, titles and cards come from files of others."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_to_printable,
    )
    environment.filters["decimal"] = format_decimal
    environment.globals |= {"map_width": MAP_WIDTH, "color_bar_height": COLOR_BAR_HEIGHT}
    return environment


def _to_printable(value: Any) -> Any:
    """Shorten numbers to the digits of a drawing, and replace characters that do not print.

    Characters that are not printable could reverse the order of letters, for example.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if hasattr(value, "__html__"):
        return value
    return "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))
