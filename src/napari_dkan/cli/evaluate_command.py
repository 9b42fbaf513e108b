"""`napari-dkan evaluate` and `napari-dkan zeroshot`: evaluate on measured sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..atomic_write import require_output_folder, write_json
from ..errors import SpotsError
from ..training.train_settings import BaselineName
from .option_groups import MeasuredOptions, SlideOptions, with_option_groups
from .shared_options import (
    COUNTS_OPTION,
    CheckpointOption,
    DataOption,
    DeviceOption,
    EncoderWeightsOption,
    PanelOption,
    ReportOption,
    SectionsOption,
    SettingChangesOption,
    checkpoint_word,
    echo_log,
    format_command_line,
    parse_section_names,
    resolve_checkpoint,
)


@with_option_groups
def run_evaluate(
    counts: Annotated[Path, COUNTS_OPTION],
    out: ReportOption,
    section: MeasuredOptions,
    checkpoint: CheckpointOption = "bundled",
    baseline: Annotated[
        list[BaselineName] | None, typer.Option(help="Train this beside it; may be repeated.")
    ] = None,
    train_data: Annotated[
        Path | None, typer.Option(help="Folder with sections to train the baseline on.")
    ] = None,
    train_sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3; default all there are.")
    ] = None,
    train_mpp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]UM",
            help="Micrometres per pixel of their slides, or of one section; may be given several "
            "times. --mpp is that of the slide that is scored.",
        ),
    ] = None,
    train_image_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]IMAGE",
            help="Name or number of the image in their files, or in that of one section; default "
            "the scan; may be given several times.",
        ),
    ] = None,
    train_whole_glass: Annotated[
        bool,
        typer.Option(
            "--train-whole-glass", help="Count their positions from the glass, not the scan area."
        ),
    ] = False,
    device: DeviceOption = None,
    encoder_weights: EncoderWeightsOption = None,
) -> None:
    """Score a checkpoint on any measured section, beside plain methods."""
    from ..inference.section_choices import SectionChoices, open_section_slide
    from ..model import load_checkpoint
    from ..training.data.measured_section import make_measured_section
    from ..training.evaluation.crossval_report import format_metrics_table
    from ..training.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from ..training.run_provenance import collect_provenance

    require_output_folder(out)
    baselines = [b.value for b in baseline or ()]
    if baselines and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    for option, value in {
        "--train-mpp": train_mpp,
        "--train-image-name": train_image_name,
        "--train-whole-glass": train_whole_glass,
    }.items():
        if value and train_data is None:
            raise SpotsError(f"{option} is of the sections of --train-data; give both.")
    names = parse_section_names(train_sections)
    train_choices = SectionChoices.parse(
        train_mpp, train_image_name, train_whole_glass, prefix="--train-"
    )
    model = load_checkpoint(resolve_checkpoint(checkpoint))
    data = section.read_section(counts)
    measured = make_measured_section(data, model, section.few_genes)
    missing = measured.missing_genes
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        echo_log(
            f"{len(missing)} of {len(model.panel)} panel genes are not measured and not scored: "
            f"{shown}"
        )
    with open_section_slide(data.uns) as slide:
        report = evaluate_checkpoint(
            model,
            slide,
            measured,
            section.mpp,
            baselines=baselines,
            train_data=train_data,
            train_sections=names,
            train_choices=train_choices,
            device=device,
            encoder_weights=encoder_weights,
            log=echo_log,
        )
    report["made"] = collect_provenance(
        format_command_line(
            "evaluate",
            checkpoint=checkpoint_word(checkpoint),
            counts=counts,
            **section.command_words(),
            baseline=baselines,
            train_data=train_data,
            train_sections=train_sections,
            train_mpp=train_mpp,
            train_image_name=train_image_name,
            train_whole_glass=train_whole_glass,
        )
    )
    write_json(out, report)
    if report["seen_in_training"]:
        echo_log("this slide is among those the checkpoint was trained on: no measure of quality")
    typer.echo(f"{report['section']}: {report['spots']} spots, {report['genes']} genes")
    if report["shallow"]:
        typer.echo(report["shallow"])
    typer.echo(format_metrics_table(report["metrics"]))
    typer.echo(f"written to {out}")


@with_option_groups
def run_zeroshot(
    data: DataOption,
    gene_text: Annotated[
        Path, typer.Option(help="Gene file of `genes build`, or .npz.", show_default=False)
    ],
    out: ReportOption,
    slides: SlideOptions,
    sections: SectionsOption = None,
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
    from ..training.gene_text import read_gene_text_embeddings, resolve_panel
    from ..training.train_settings import TrainSettings, apply_setting_changes

    names = parse_section_names(sections)
    require_output_folder(out)  # before an hour of training
    # one network per fold: the mean of several raises text and shuffled text alike
    settings = apply_setting_changes(TrainSettings(epochs=epochs, seed=seed, members=1), set_ or ())
    genes = resolve_panel(data, panel)
    text = read_gene_text_embeddings(gene_text, genes)
    prepared = load_sections(data, names, genes, settings, choices=slides.choices(), log=echo_log)
    settings = adapt_settings_to_sections(settings, prepared)
    report = evaluate_zero_shot(
        prepared, genes, text, settings, held_out=held_out, draws=draws, log=echo_log
    )
    write_json(out, report)
    verdict = "beats" if report["beats_shuffled"] else "does not beat"
    figures = {"PCC": report}
    if "depth_partial" in report:
        figures = {"depth-partial PCC": report["depth_partial"], "PCC": report}
    typer.echo(
        f"text {verdict} shuffled text: "
        + "; ".join(
            f"{name} {f['pcc']:.3f}, shuffled {f['shuffled_pcc']:.3f} "
            f"({2 * f['standard_error']:.3f} is two standard errors), panel mean "
            f"{f['panel_mean_pcc']:.3f}"
            for name, f in figures.items()
        )
        + f"; written to {out}"
    )
