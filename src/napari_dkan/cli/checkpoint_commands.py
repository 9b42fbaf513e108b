"""`napari-dkan convert` and `napari-dkan info`: import and describe checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import resolve_checkpoint


def run_convert(
    ckpt: Annotated[Path, typer.Argument(help="Published Lightning checkpoint.")],
    genes: Annotated[Path, typer.Option(help="Its genes.npy (or a text file).")],
    gene_features: Annotated[Path, typer.Option(help="Its gene_features.pt.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    patch_um: Annotated[
        float, typer.Option(help="Side of a 224 px patch in um; the files do not state it.")
    ] = 154.112,
    encoder: Annotated[
        str | None, typer.Option(help="Tile encoder of the features; UNI where the width is 1024.")
    ] = None,
    gene_tables: Annotated[
        Path | None, typer.Option(help="Folder with gene description and alias tables.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title on the checkpoint's card.")] = "",
) -> None:
    """Import a published checkpoint; nothing in its files is executed."""
    from ..expression.panel import annotate_panel_from_folder
    from ..model.checkpoint.published_import import convert_published

    converted = convert_published(
        ckpt,
        genes,
        gene_features,
        out,
        patch_um=patch_um,
        encoder=encoder,
        annotate=None
        if gene_tables is None
        else lambda panel: annotate_panel_from_folder(panel, gene_tables),
        title=title,
    )
    typer.echo(f"{len(converted.panel)} genes, written to {out}")


def run_info(file: Annotated[Path, typer.Argument(help="A checkpoint.")]) -> None:
    """Print a checkpoint's card."""
    from ..model.checkpoint.checkpoint_card import describe_checkpoint
    from ..model.checkpoint.checkpoint_header import read_checkpoint_header

    typer.echo(describe_checkpoint(read_checkpoint_header(resolve_checkpoint(file))))
