"""`napari-dkan crossval`: cross-validate DKAN and its baselines and write a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from ..atomic_write import require_output_folder, write_json
from ..errors import SpotsError
from ..training.option_choices import FoldUnit, Precision, SettingsPreset
from .shared_options import (
    DataOption,
    DevicesOption,
    EncoderOption,
    EncoderWeightsOption,
    GeneTextOption,
    PanelOption,
    ResumeOption,
    RunFolderOption,
    SettingChangesOption,
    StainOption,
    format_command_line,
    parse_section_names,
)


def crossval_command(
    data: DataOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    by: Annotated[FoldUnit, typer.Option(help="What is left out together.")] = FoldUnit.section,
    panel: PanelOption = None,
    gene_text: GeneTextOption = None,
    preset: Annotated[
        SettingsPreset, typer.Option(help="The settings to train with.")
    ] = SettingsPreset.bundled,
    seeds: Annotated[str, typer.Option(help="DKAN is trained once with each.")] = "2021",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.")] = None,
    set_: SettingChangesOption = None,
    encoder: EncoderOption = None,
    encoder_weights: EncoderWeightsOption = None,
    stain: StainOption = None,
    devices: DevicesOption = 1,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = Precision.auto,
    run: RunFolderOption = None,
    resume: ResumeOption = False,
) -> None:
    """Test each section (or patient) once, with DKAN and every baseline, and write a report."""
    from ..training.data.section_loading import adapt_settings_to_sections, load_sections
    from ..training.evaluation.crossval import cross_validate, make_folds
    from ..training.evaluation.crossval_report import build_crossval_report, format_metrics_table
    from ..training.fit.fit_model import TrainingHardware
    from ..training.fit.run_folder import RunFolder
    from ..training.genes.gene_text import resolve_gene_text, resolve_panel
    from ..training.run_provenance import collect_provenance
    from ..training.train import build_run_config, build_training_card
    from ..training.train_settings import apply_setting_changes, make_preset_settings

    names = parse_section_names(sections)
    numbers = _parse_seeds(seeds)
    require_output_folder(out)
    hardware = TrainingHardware(devices, precision)
    hardware.trainer_options()  # what this machine does not have is told before the slides are read
    settings = replace(make_preset_settings(preset), seed=numbers[0])
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    settings = apply_setting_changes(settings, set_ or ())

    def log(line: str) -> None:
        typer.echo(line, err=True)

    genes = resolve_panel(data, panel)
    prepared = load_sections(
        data,
        names,
        genes,
        settings,
        encoder=encoder,
        encoder_weights=encoder_weights,
        stain=stain and stain.value,
        log=log,
    )
    make_folds(prepared, by)
    settings = adapt_settings_to_sections(settings, prepared)
    text = resolve_gene_text(data, gene_text, genes, settings)
    config = build_run_config("crossval", prepared, genes, text, settings)
    config |= {"by": by.value, "seeds": numbers, "precision": precision.value}
    made = collect_provenance(
        format_command_line(
            "crossval",
            data=data,
            sections=names and ",".join(names),
            by=by.value,
            panel=panel,
            gene_text=gene_text,
            preset=preset.value,
            seeds=seeds,
            epochs=epochs,
            set=set_,
            encoder=encoder,
            stain=stain and stain.value,
            precision=precision.value,
        )
    )
    folder = RunFolder.create_or_resume(
        run or out.with_suffix(".run"), {"run": config, "made": made}, resume
    )
    result = cross_validate(
        prepared,
        text,
        settings,
        by=by,
        seeds=numbers,
        run=folder,
        hardware=hardware,
        log=log,
        log_epoch=log,
    )
    report = build_crossval_report(
        result, genes, {**made, **config, "gene_text_source": text.source}
    )
    epochs = round(median(result.epochs))
    folder.write_json("card.json", build_training_card(prepared, genes, settings, epochs, report))
    write_json(out, report)
    typer.echo(format_metrics_table(report["mean"]))
    typer.echo(f"written to {out}, the run to {folder.path}")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise SpotsError("--seeds takes whole numbers, such as 2021,2022,2023.") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise SpotsError("--seeds takes different numbers of 0 or more; give each once.")
    return seeds
