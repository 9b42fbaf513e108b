"""`napari-dkan predict`: predict expression on one slide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpotsError
from .option_groups import JobOptions, with_option_groups
from .shared_options import DeviceOption, LibraryOption, echo_log

if TYPE_CHECKING:
    from ..inference.prediction_progress import PredictionUpdate


@with_option_groups
def run_predict(
    slide: Annotated[str, typer.Argument(help="The H&E slide, or the address of an OME-Zarr.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .h5ad file to write.")],
    options: JobOptions,
    spots: Annotated[Path | None, typer.Option(help="Predict at the spots of this file.")] = None,
    library: LibraryOption = None,
    regions: Annotated[Path | None, typer.Option(help="Predict inside: GeoJSON or a mask.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Tile features of TRIDENT or CLAM (.h5) instead of encoding."),
    ] = None,
    tissue: Annotated[bool, typer.Option("--tissue", help="The whole tissue (default).")] = False,
    device: DeviceOption = None,
    store: Annotated[
        bool, typer.Option(help="Keep tiles on disk, and take those kept (`cache show`).")
    ] = True,
    timing: Annotated[bool, typer.Option(help="Say at the end where the time went.")] = False,
) -> None:
    """Predict expression on a slide and write an AnnData."""
    from ..batch.predict_slide import predict_slide

    if sum((spots is not None, regions is not None, tissue)) > 1:
        raise SpotsError("Give one of --spots, --regions and --tissue, not several.")
    job = options.make_job(
        slide,
        out,
        spots=spots,
        library=library,
        regions=regions,
        features=features,
        device=device,
        store=store,
    )
    with _show_progress() as (on_progress, write_message):
        outcome = predict_slide(job, on_progress, write_message)
    if timing:
        echo_log(outcome.timing)
    if outcome.n_unreliable:
        echo_log(f"{outcome.n_unreliable:,} of them should not be relied on: see obs['unreliable']")
    typer.echo(f"{outcome.n_spots:,} spots x {outcome.n_genes} genes written to {out}")


@contextmanager
def _show_progress() -> Iterator[tuple[Callable[[PredictionUpdate], None], Callable[[str], None]]]:
    """Show a progress bar; yield a function that updates it and one that prints above it."""
    from tqdm import tqdm

    with tqdm(unit="tile", desc="reading the slide", disable=None) as bar:

        def on_progress(update: PredictionUpdate) -> None:
            if update.stage == "context":  # neighbours of the next tiles
                bar.set_description(f"reading the slide ({update.done}/{update.total})")
            else:
                bar.set_description("predicting")
                bar.n, bar.total = update.done, update.total
            bar.refresh()

        yield on_progress, partial(tqdm.write, file=sys.stderr)
