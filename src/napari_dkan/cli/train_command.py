"""`napari-dkan train` and `reference`: write a checkpoint, or add its reference statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..atomic_write import require_output_folder
from ..errors import SpotsError
from ..model.methods.method_configs import CONFIGS, DKAN_METHOD
from .option_groups import FitOptions, SlideOptions, with_option_groups
from .shared_options import (
    DataOption,
    EncoderWeightsOption,
    SectionsOption,
    echo_log,
    parse_section_names,
    resolve_checkpoint,
)

CheckpointOutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Checkpoint to write.", show_default=False)
]


@with_option_groups
def run_train(
    options: FitOptions,
    slides: SlideOptions,
    out: CheckpointOutOption,
    gene_tables: Annotated[
        Path | None, typer.Option(help="Folder with gene description and alias tables.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs at most; with --no-crossval exactly.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(CONFIGS)}.")] = DKAN_METHOD,
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
    title: Annotated[str, typer.Option(help="Title on the checkpoint's card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence on the checkpoint's card.")] = "",
    source: Annotated[str, typer.Option(help="Where the data comes from, for the card.")] = "",
    limits: Annotated[str, typer.Option(help="What not to use it for, for the card.")] = "",
) -> None:
    """Train DKAN or another method on measured sections and write a checkpoint with its card."""
    from ..training.evaluation.zero_shot_evaluation import read_zero_shot_card
    from ..training.train import prepare_training_inputs, train_checkpoint

    names = options.section_names()
    hardware = options.hardware()
    if method not in CONFIGS:
        raise SpotsError(f"--method takes one of {', '.join(CONFIGS)}, not {method!r:.40}.")
    settings = replace(options.settings(seed, epochs), method=method)
    command = options.format_command_line(
        "train",
        "data sections mpp image_name whole_glass method panel gene_text gene_tables preset epochs "
        "seed set measured zero_shot encoder stain",
        **slides.command_words(),
        method=method,
        gene_tables=gene_tables,
        epochs=epochs,
        seed=seed,
        measured=measured,
        zero_shot=zero_shot,
    )
    card = {
        "title": title,
        "licence": licence,
        "source": source,
        "limits": limits,
        "zero_shot": {} if zero_shot is None else read_zero_shot_card(zero_shot),
        "command": command if crossval else f"{command} --no-crossval",
    }
    require_output_folder(out)  # before an hour of training
    inputs = prepare_training_inputs(
        options.data,
        names,
        options.panel,
        settings,
        gene_tables=gene_tables,
        choices=slides.choices(),
        **options.input_arguments(),
    )
    train_checkpoint(
        inputs,
        out,
        crossval=crossval,
        crossval_report_file=measured,
        card={key: value for key, value in card.items() if value},
        run=options.run_folder(out),
        resume=options.resume,
        hardware=hardware,
        log=echo_log,
        log_epoch=echo_log,
    )


@with_option_groups
def run_reference(
    checkpoint: Annotated[
        str, typer.Argument(help="A file, or bundled for the one of this package.")
    ],
    data: DataOption,
    out: CheckpointOutOption,
    slides: SlideOptions,
    sections: SectionsOption = None,
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
    from ..model.safetensors_header import read_safetensors_header
    from ..training.fit.build_reference import add_reference, read_reliability_report

    names = parse_section_names(sections)
    entry = {} if reliability is None else {"reliability": read_reliability_report(reliability)}
    path = resolve_checkpoint(checkpoint)
    extended = add_reference(
        load_checkpoint(path),
        data,
        names,
        tissue=tissue,
        encoder_weights=encoder_weights,
        choices=slides.choices(),
        log=echo_log,
    )
    extended = replace(extended, card=extended.card | entry)
    # the network does not change, so a file of half precision stays one
    half = any(dtype == "F16" for dtype, _ in read_safetensors_header(path).tensors.values())
    save_checkpoint(out, extended, half=half)
    assert extended.reference is not None
    typer.echo(f"a reference of {extended.reference.n_spots:,} spots, written to {out}")
