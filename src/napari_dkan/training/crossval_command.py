"""`napari-dkan crossval`: DKAN and its baselines on the same splits, into one report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from ..errors import OutputError, SpotsError
from .choices import By, Precision, Preset
from .options import (
    Data,
    Devices,
    Encoder,
    EncoderWeights,
    GeneText,
    Panel,
    Resume,
    Run,
    Set,
    StainNormalisation,
    command_line,
    names_of,
)


def crossval_command(
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    by: Annotated[By, typer.Option(help="What is left out together.")] = By.section,
    panel: Panel = None,
    gene_text: GeneText = None,
    preset: Annotated[Preset, typer.Option(help="The settings to train with.")] = Preset.bundled,
    seeds: Annotated[str, typer.Option(help="DKAN is trained once with each.")] = "2021",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.")] = None,
    set_: Set = None,
    encoder: Encoder = None,
    encoder_weights: EncoderWeights = None,
    stain: StainNormalisation = None,
    devices: Devices = 1,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = Precision.auto,
    run: Run = None,
    resume: Resume = False,
) -> None:
    """Test each section (or patient) once, with DKAN and every baseline, and write a report."""
    from .card import make_card
    from .crossval import cross_validate
    from .fingerprint import provenance
    from .hardware import Hardware
    from .inputs import panel_of, text_of
    from .loading import load_sections, settings_for
    from .presets import changed, settings_of
    from .report import crossval_report, table
    from .run_folder import RunFolder, write_json
    from .splits import make_folds
    from .train import run_config

    names = names_of(sections)
    numbers = _seeds(seeds)
    if not out.parent.is_dir():  # now, and not after an hour of training
        raise OutputError(f"{out.parent} is not a folder; make it, or write elsewhere.")
    hardware = Hardware(devices, precision)
    hardware.trainer_options()  # what this machine does not have is told before the slides are read
    settings = replace(settings_of(preset), seed=numbers[0])
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    settings = changed(settings, set_ or ())

    def log(line: str) -> None:
        typer.echo(line, err=True)

    genes = panel_of(data, panel)
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
    settings = settings_for(settings, prepared)
    text = text_of(data, gene_text, genes, settings)
    config = run_config("crossval", prepared, genes, text, settings)
    config |= {"by": by.value, "seeds": numbers, "precision": precision.value}
    made = provenance(
        command_line(
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
    folder = RunFolder.start(run or out.with_suffix(".run"), {"run": config, "made": made}, resume)
    result = cross_validate(
        prepared,
        text,
        settings,
        by=by,
        seeds=numbers,
        run=folder,
        hardware=hardware,
        log=log,
        tick=log,
    )
    report = crossval_report(result, genes, {**made, **config, "gene_text_source": text.source})
    epochs = round(median(result.epochs))
    folder.write_json("card.json", make_card(prepared, genes, settings, epochs, report))
    write_json(out, report)
    typer.echo(table(report["mean"]))
    typer.echo(f"written to {out}, the run to {folder.path}")


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        raise SpotsError("--seeds takes whole numbers, such as 2021,2022,2023.") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise SpotsError("--seeds takes different numbers of 0 or more; give each once.")
    return seeds
