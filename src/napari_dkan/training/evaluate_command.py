"""`napari-dkan evaluate`: score a checkpoint on a measured section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError, SpotsError
from .choices import BaselineName
from .options import EncoderWeightsOption, format_command_line, parse_section_names

if TYPE_CHECKING:
    from anndata import AnnData


def evaluate_command(
    counts: Annotated[Path, typer.Option(help="Raw counts: .tsv(.gz), .h5ad, 10x .h5, .parquet.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    checkpoint: Annotated[
        str, typer.Option(help="A file, or bundled for the one of this package.")
    ] = "bundled",
    image: Annotated[
        Path | None, typer.Option(help="The H&E slide; default the one beside an h5ad.")
    ] = None,
    spots: Annotated[
        Path | None, typer.Option(help="Where the spots are, unless an h5ad of counts says it.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel of the slide.")] = None,
    baseline: Annotated[
        list[BaselineName] | None, typer.Option(help="Train this beside it; may be repeated.")
    ] = None,
    train_data: Annotated[
        Path | None, typer.Option(help="Folder with sections to train the baseline on.")
    ] = None,
    train_sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3; default all there are.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1, mps, cpu; default best.")
    ] = None,
    encoder_weights: EncoderWeightsOption = None,
) -> None:
    """Score a checkpoint on any measured section, beside plain methods."""
    from ..model import load_checkpoint
    from ..slide import open_slide
    from .evaluate import evaluate_checkpoint, make_measured_section
    from .fingerprint import collect_provenance
    from .report import format_metrics_table
    from .run_folder import write_json

    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is not a folder; make it, or write elsewhere.")
    if baseline and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    names = parse_section_names(train_sections)
    model = load_checkpoint(resolve_checkpoint(checkpoint))
    data = read_section_with_image(image, counts, spots)
    measured = make_measured_section(data, model)

    def log(line: str) -> None:
        typer.echo(line, err=True)

    if measured.missing_genes:
        named = ", ".join(measured.missing_genes[:5]) + (", ..." if len(measured.missing_genes) > 5 else "")
        log(
            f"{len(measured.missing_genes)} of {len(model.panel)} panel genes are not measured and not "
            f"scored: {named}"
        )
    with open_slide(data.uns["image"]) as slide:
        report = evaluate_checkpoint(
            model,
            slide,
            measured,
            mpp,
            baselines=[b.value for b in baseline or ()],
            train_data=train_data,
            train_sections=names,
            device=device,
            encoder_weights=encoder_weights,
            log=log,
        )
    report["made"] = collect_provenance(
        format_command_line(
            "evaluate",
            checkpoint=checkpoint if checkpoint == "bundled" else Path(checkpoint),
            image=image,
            counts=counts,
            spots=spots,
            mpp=mpp,
            baseline=" --baseline ".join(b.value for b in baseline or ()) or None,
            train_data=train_data,
            train_sections=train_sections,
        )
    )
    write_json(out, report)
    if report["seen_in_training"]:
        log("this slide is among those the checkpoint was trained on: no measure of quality")
    typer.echo(f"{report['section']}: {report['spots']} spots, {report['genes']} genes")
    typer.echo(format_metrics_table(report["metrics"]))
    typer.echo(f"written to {out}")


def resolve_checkpoint(name_or_path: str) -> Path:
    """A file, or ``bundled`` for the one of this package."""
    from ..samples.bundled import find_bundled_checkpoint

    return find_bundled_checkpoint("her2-breast") if name_or_path == "bundled" else Path(name_or_path)


def read_section_with_image(image: Path | None, counts: Path, spots: Path | None) -> AnnData:
    """A measured section with its image. Raises SpotsError when something is missing or bad."""
    from ..expression.loose import read_single_section

    data = read_single_section(image, counts, spots)
    if not data.uns["image"]:
        raise SpotsError(f"{counts.name} has no image beside it; give the slide by --image.")
    return data
