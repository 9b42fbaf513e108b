"""`napari-dkan export`: convert a saved result to another file format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..batch.slide_job import split_names
from ..errors import SpotsError


def run_export(
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
    from ..export.export_formats import find_export_format
    from ..export.result_reader import load_result
    from ..export.saved_result import select_symbols

    formats = [find_export_format(path) for path in out]  # an error before anything is read
    saved = load_result(result)
    requested = split_names(genes)
    symbols = select_symbols(saved.prediction, requested)
    if not symbols:
        raise SpotsError("--genes names no gene; give symbols separated by commas.")
    for path, export_format in zip(out, formats, strict=True):
        export_format.write(path, saved, requested and symbols)
        typer.echo(f"{export_format.title} written to {path}")
