"""`napari-dkan train`: sections in, checkpoint out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpotsError


def train_command(
    data: Annotated[
        Path,
        typer.Option(help="Folder with ST-imgs, ST-cnts and ST-spotfiles.", show_default=False),
    ],
    sections: Annotated[
        str, typer.Option(help="Sections to train on, such as C2,C3,C4,C5.", show_default=False)
    ],
    panel: Annotated[
        Path, typer.Option(help="Text file with one gene symbol per line.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Checkpoint to write.", show_default=False)
    ],
    gene_text: Annotated[
        Path | None, typer.Option(help="Gene text embeddings, .npz with genes and features.")
    ] = None,
    gene_tables: Annotated[
        Path | None, typer.Option(help="Folder with gene description and alias tables.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs at most; with --no-crossval exactly.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 2021,
    crossval: Annotated[
        bool, typer.Option(help="First measure by leaving one section out at a time.")
    ] = True,
    title: Annotated[str, typer.Option(help="Title on the checkpoint's card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence on the checkpoint's card.")] = "",
    source: Annotated[str, typer.Option(help="Where the data comes from, for the card.")] = "",
    limits: Annotated[str, typer.Option(help="What not to use it for, for the card.")] = "",
) -> None:
    """Train DKAN on measured sections and write a checkpoint with an honest card."""
    from .settings import Settings
    from .train import train

    names = [name.strip() for name in sections.split(",") if name.strip()]
    if not names:
        raise SpotsError("--sections names no section; give some, such as C2,C3,C4,C5.")
    if len(set(names)) != len(names):
        raise SpotsError("--sections names a section twice; give each once.")
    settings = Settings(seed=seed)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    stated = {
        "title": title,
        "licence": licence,
        "source": source,
        "limits": limits,
        "command": _command(data, names, panel, gene_text, gene_tables, epochs, seed, crossval),
    }
    train(
        data,
        names,
        panel,
        out,
        settings=settings,
        gene_text_file=gene_text,
        gene_tables=gene_tables,
        crossval=crossval,
        card={key: text for key, text in stated.items() if text},
        log=lambda line: typer.echo(line, err=True),
    )


def _command(
    data: Path,
    sections: list[str],
    panel: Path,
    gene_text: Path | None,
    gene_tables: Path | None,
    epochs: int | None,
    seed: int,
    crossval: bool,
) -> str:
    """What was asked for, with the last part of each path: a card is passed on to others."""
    options = {
        "--data": data.resolve().name,
        "--sections": ",".join(sections),
        "--panel": panel.name,
        "--gene-text": gene_text and gene_text.name,
        "--gene-tables": gene_tables and gene_tables.resolve().name,
        "--epochs": epochs,
        "--seed": seed,
    }
    words = [f"{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["napari-dkan train", *words, "--crossval" if crossval else "--no-crossval"])
