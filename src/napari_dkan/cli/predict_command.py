"""`napari-dkan predict`: predict expression on one slide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..batch.slide_job import SlideJob, TilePitch, split_names
from ..errors import SpotsError
from .shared_options import (
    ImageNameOption,
    LibraryOption,
    RegionObjectsOption,
    WholeGlassOption,
    echo_log,
    job_checkpoint,
)

if TYPE_CHECKING:
    from ..inference.prediction_progress import PredictionUpdate


def run_predict(
    slide: Annotated[str, typer.Argument(help="The H&E slide, or the address of an OME-Zarr.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .h5ad file to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the bundled one.")] = None,
    spots: Annotated[Path | None, typer.Option(help="Predict at the spots of this file.")] = None,
    library: LibraryOption = None,
    regions: Annotated[Path | None, typer.Option(help="Predict inside: GeoJSON or a mask.")] = None,
    region_objects: RegionObjectsOption = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Tile features of TRIDENT or CLAM (.h5) instead of encoding."),
    ] = None,
    features_encoder: Annotated[
        str | None,
        typer.Option(help="Who made them, where the file does not say (uni, conch ...)."),
    ] = None,
    tissue: Annotated[bool, typer.Option("--tissue", help="The whole tissue (default).")] = False,
    tissue_only: Annotated[bool, typer.Option(help="Leave out tiles off the tissue.")] = True,
    pitch: Annotated[TilePitch, typer.Option(help="Distance between tiles.")] = TilePitch.training,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel of the slide.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1, mps, cpu; default best.")
    ] = None,
    genes: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    zero_shot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:A,B]",
            help="Also genes outside the panel, by their text from `genes build`; A and B only.",
        ),
    ] = None,
    allow_unproven: Annotated[
        bool, typer.Option(help="Such genes even where the card has no proof that it works.")
    ] = False,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="Local weights of the checkpoint's tile encoder.")
    ] = None,
    store: Annotated[
        bool, typer.Option(help="Keep tiles on disk, and take those kept (`cache show`).")
    ] = True,
    icc: Annotated[bool, typer.Option(help="Apply the slide's ICC profile.")] = False,
    image_name: ImageNameOption = None,
    whole_glass: WholeGlassOption = False,
    timing: Annotated[bool, typer.Option(help="Say at the end where the time went.")] = False,
) -> None:
    """Predict expression on a slide and write an AnnData."""
    from ..batch.predict_slide import predict_slide

    if sum((spots is not None, regions is not None, tissue)) > 1:
        raise SpotsError("Give one of --spots, --regions and --tissue, not several.")
    job = SlideJob(
        slide,
        out,
        checkpoint=job_checkpoint(checkpoint),
        spots=spots,
        library=library,
        regions=regions,
        features=features,
        features_encoder=features_encoder,
        tissue_only=tissue_only,
        pitch=pitch,
        mpp=mpp,
        genes=split_names(genes),
        zero_shot=zero_shot,
        allow_unproven=allow_unproven,
        device=device,
        encoder_weights=encoder_weights,
        store=store,
        icc=icc,
        image=image_name,
        whole_glass=whole_glass or None,
        region_objects=region_objects and region_objects.value,
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
