"""`napari-dkan export`: convert a saved result to another file format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    result: Annotated[Path, typer.Argument(help="An .h5ad that napari-dkan has written.")],
    out: Annotated[
        list[Path],
        typer.Option(
            "--out",
            "-o",
            help="What to write, told by its ending: .csv, .geojson (QuPath), .ome.zarr, "
            ".spatialdata.zarr, .png, .svg, .pdf; may be given several times.",
        ),
    ],
    genes: Annotated[
        str | None, typer.Option(help="Only these, comma-separated; all by default.")
    ] = None,
) -> None:
    """Write a saved result for other programs."""
    from ..errors import SpotsError
    from ..export.export_formats import find_export_format
    from ..export.result_reader import load_result
    from ..export.saved_result import select_symbols

    kinds = [find_export_format(path) for path in out]  # told before anything is read or written
    saved = load_result(result)
    wanted = None if genes is None else [g.strip() for g in genes.split(",") if g.strip()]
    symbols = select_symbols(saved.prediction, wanted)
    if not symbols:
        raise SpotsError("--genes names no gene; give symbols separated by commas.")
    for path, kind in zip(out, kinds, strict=True):
        kind.write(path, saved, wanted and symbols)
        typer.echo(f"{kind.title} written to {path}")
