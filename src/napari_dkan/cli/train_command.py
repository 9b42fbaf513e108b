"""`napari-dkan train` and `napari-dkan reference`: write a trained checkpoint, or add reference statistics to one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..training.option_choices import Precision, SettingsPreset
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


def train_command(
    data: DataOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Checkpoint to write.", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
    ] = None,
    panel: PanelOption = None,
    gene_text: GeneTextOption = None,
    gene_tables: Annotated[
        Path | None, typer.Option(help="Folder with gene description and alias tables.")
    ] = None,
    preset: Annotated[
        SettingsPreset, typer.Option(help="The settings to train with.")
    ] = SettingsPreset.bundled,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs at most; with --no-crossval exactly.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 2021,
    crossval: Annotated[
        bool, typer.Option(help="First measure by leaving one section out at a time.")
    ] = True,
    measured: Annotated[
        Path | None,
        typer.Option(help="Report of `crossval` on the same; its scores and epochs are taken."),
    ] = None,
    zero_shot: Annotated[
        Path | None, typer.Option(help="Report of `zeroshot`; its figures go on the card.")
    ] = None,
    set_: SettingChangesOption = None,
    encoder: EncoderOption = None,
    encoder_weights: EncoderWeightsOption = None,
    stain: StainOption = None,
    devices: DevicesOption = 1,
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = Precision.auto,
    run: RunFolderOption = None,
    resume: ResumeOption = False,
    title: Annotated[str, typer.Option(help="Title on the checkpoint's card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence on the checkpoint's card.")] = "",
    source: Annotated[str, typer.Option(help="Where the data comes from, for the card.")] = "",
    limits: Annotated[str, typer.Option(help="What not to use it for, for the card.")] = "",
) -> None:
    """Train DKAN on measured sections and write a checkpoint with an honest card."""
    from ..training.evaluation.zero_shot_evaluation import read_zero_shot_card
    from ..training.fit.fit_model import TrainingHardware
    from ..training.train import train_checkpoint
    from ..training.train_settings import apply_setting_changes, make_preset_settings

    names = parse_section_names(sections)
    hardware = TrainingHardware(devices, precision)
    hardware.trainer_options()  # what this machine does not have is told before the slides are read
    settings = replace(make_preset_settings(preset), seed=seed)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    settings = apply_setting_changes(settings, set_ or ())
    command = format_command_line(
        "train",
        data=data,
        sections=names and ",".join(names),
        panel=panel,
        gene_text=gene_text,
        gene_tables=gene_tables,
        preset=preset.value,
        epochs=epochs,
        seed=seed,
        set=set_,
        measured=measured,
        zero_shot=zero_shot,
        encoder=encoder,
        stain=stain and stain.value,
    )
    stated = {
        "title": title,
        "licence": licence,
        "source": source,
        "limits": limits,
        "zero_shot": {} if zero_shot is None else read_zero_shot_card(zero_shot),
        "command": command if crossval else f"{command} --no-crossval",
    }

    def log(line: str) -> None:
        typer.echo(line, err=True)

    train_checkpoint(
        data,
        names,
        panel,
        out,
        settings=settings,
        gene_text_file=gene_text,
        gene_tables=gene_tables,
        encoder=encoder,
        encoder_weights=encoder_weights,
        stain=stain and stain.value,
        crossval=crossval,
        crossval_report_file=measured,
        card={key: text for key, text in stated.items() if text},
        run=run or out.with_suffix(".run"),
        resume=resume,
        hardware=hardware,
        log=log,
        log_epoch=log,
    )


def reference_command(
    checkpoint: Annotated[
        str, typer.Argument(help="A file, or bundled for the one of this package.")
    ],
    data: DataOption,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Checkpoint to write.", show_default=False)
    ],
    sections: Annotated[
        str | None, typer.Option(help="Those it was trained on, such as C2,C3; default all.")
    ] = None,
    tissue: Annotated[
        str, typer.Option(help="What it was trained on in words, such as 'human breast cancer'.")
    ] = "",
    reliability: Annotated[
        Path | None,
        typer.Option(help="Report of benchmarks/reliability.py; its figures go on the card."),
    ] = None,
    encoder_weights: EncoderWeightsOption = None,
) -> None:
    """Add to a checkpoint what judging its predictions takes, and the plain baseline's weights."""
    from ..model import load_checkpoint, save_checkpoint
    from ..model.tensor_files import read_safetensors_header
    from ..samples.bundled_checkpoints import find_bundled_checkpoint
    from ..training.fit.build_reference import add_reference, read_reliability_report

    names = parse_section_names(sections)
    told = {} if reliability is None else {"reliability": read_reliability_report(reliability)}
    path = find_bundled_checkpoint("her2-breast") if checkpoint == "bundled" else Path(checkpoint)
    made = add_reference(
        load_checkpoint(path),
        data,
        names,
        tissue=tissue,
        encoder_weights=encoder_weights,
        log=lambda line: typer.echo(line, err=True),
    )
    made = replace(made, card=made.card | told)
    # as compact as it was: nothing of the network changes
    half = any(kind == "F16" for kind, _ in read_safetensors_header(path).tensors.values())
    save_checkpoint(out, made, half=half)
    assert made.reference is not None
    typer.echo(f"a reference of {made.reference.n_spots:,} spots, written to {out}")
