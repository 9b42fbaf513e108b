"""`napari-dkan encoders`: list published tile encoders and download their weights."""

from __future__ import annotations

from typing import Annotated

import typer

encoders_app = typer.Typer(help="Tile encoders known by name, and their weights.")


@encoders_app.callback(invoke_without_command=True)
def run_encoders_list(context: typer.Context) -> None:
    """List the encoders known by name: licence, access, size, and whether they are here."""
    if context.invoked_subcommand is not None:
        return
    from ..model.encoders.weights_download import list_published_weights

    lines = [("name", "from", "licence", "access", "size", "features", "tile", "here")]
    for o in list_published_weights():
        here = "no" if o.cached_file is None else "yes"
        about = (o.short_name, o.repository, o.licence, o.access, o.size_text)
        lines.append((*about, str(o.dimension), f"{o.px} px", here))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
    typer.echo("\nAny timm model and hf-hub:owner/model in timm's format can be named too.")


@encoders_app.command("get")
def run_encoders_get(
    name: Annotated[str, typer.Argument(help="Such as uni, phikon or hf-hub:owner/model.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the download.")] = False,
    revision: Annotated[str, typer.Option(help="A commit of the hub; default the newest.")] = "",
) -> None:
    """Say what an encoder's weights are, ask, and download them; stop and go on as you like."""
    from tqdm import tqdm

    from ..model.encoders.encoder_weights import get_weights_sha256
    from ..model.encoders.weights_download import download_weights, get_weights_info

    found = get_weights_info(name, revision)
    typer.echo(found.summary)
    if found.cached_file is None:
        if not yes:
            typer.confirm("Download?", abort=True)
        with tqdm(unit="B", unit_scale=True, desc=found.short_name, disable=None) as bar:
            for so_far in download_weights(name, revision):
                bar.total = so_far.total or None
                bar.update(so_far.done - bar.n)
        found = get_weights_info(name, revision)
    if found.cached_file is not None:
        typer.echo(f"{found.cached_file}\nSHA-256 {get_weights_sha256(found.cached_file)}")
