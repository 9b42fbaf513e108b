"""`napari-dkan reference`: note in a checkpoint what its training data looked like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .options import DataOption, EncoderWeightsOption, parse_section_names


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
    from ..model.tensorfile import read_safetensors_header
    from ..samples.bundled import find_bundled_checkpoint
    from .reference import read_reliability_report, add_reference

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
