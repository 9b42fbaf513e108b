"""`napari-dkan evaluate` and `napari-dkan zeroshot`: evaluate on measured sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..atomic_write import require_output_folder, write_json
from ..errors import SpotsError
from ..training.option_choices import BaselineName
from .shared_options import (
    DataOption,
    EncoderWeightsOption,
    PanelOption,
    SettingChangesOption,
    format_command_line,
    parse_section_names,
)

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
    from ..training.data.measured_section import make_measured_section
    from ..training.evaluation.crossval_report import format_metrics_table
    from ..training.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from ..training.run_provenance import collect_provenance

    require_output_folder(out)
    if baseline and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    names = parse_section_names(train_sections)
    model = load_checkpoint(resolve_checkpoint(checkpoint))
    data = read_section_with_image(image, counts, spots)
    measured = make_measured_section(data, model)

    def log(line: str) -> None:
        typer.echo(line, err=True)

    if measured.missing_genes:
        named = ", ".join(measured.missing_genes[:5]) + (
            ", ..." if len(measured.missing_genes) > 5 else ""
        )
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
    from ..samples.bundled_checkpoints import find_bundled_checkpoint

    return (
        find_bundled_checkpoint("her2-breast") if name_or_path == "bundled" else Path(name_or_path)
    )


def read_section_with_image(image: Path | None, counts: Path, spots: Path | None) -> AnnData:
    """A measured section with its image. Raises SpotsError when something is missing or bad."""
    from ..expression.readers.single_section import read_single_section

    data = read_single_section(image, counts, spots)
    if not data.uns["image"]:
        raise SpotsError(f"{counts.name} has no image beside it; give the slide by --image.")
    return data


def zeroshot_command(
    data: DataOption,
    gene_text: Annotated[
        Path, typer.Option(help="Gene file of `genes build`, or .npz.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    panel: PanelOption = None,
    held_out: Annotated[int, typer.Option(min=2, help="Genes left out of training.")] = 25,
    draws: Annotated[int, typer.Option(min=1, help="Different sets of such genes.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of every network.")] = 40,
    set_: SettingChangesOption = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 2021,
) -> None:
    """Leave genes out of training and predict them by their description.

    The report says whether their own text beats another gene's; its summary goes on a card.
    """
    from ..training.data.section_loading import adapt_settings_to_sections, load_sections
    from ..training.evaluation.zero_shot_evaluation import evaluate_zero_shot
    from ..training.genes.gene_text import read_gene_text_embeddings, resolve_panel
    from ..training.train_settings import TrainSettings, apply_setting_changes

    names = parse_section_names(sections)
    require_output_folder(out)

    def log(line: str) -> None:
        typer.echo(line, err=True)

    # one network a fold: a mean of several would lift text and shuffled text alike
    settings = apply_setting_changes(TrainSettings(epochs=epochs, seed=seed, members=1), set_ or ())
    genes = resolve_panel(data, panel)
    text = read_gene_text_embeddings(gene_text, genes)
    prepared = load_sections(data, names, genes, settings, log=log)
    settings = adapt_settings_to_sections(settings, prepared)
    report = evaluate_zero_shot(
        prepared, genes, text, settings, held_out=held_out, draws=draws, log=log
    )
    write_json(out, report)
    verdict = "beats" if report["beats_shuffled"] else "does not beat"
    typer.echo(
        f"text {verdict} shuffled text: PCC {report['pcc']:.3f}, shuffled "
        f"{report['shuffled_pcc']:.3f} ({2 * report['standard_error']:.3f} is two standard "
        f"errors), panel mean {report['panel_mean_pcc']:.3f}; written to {out}"
    )
