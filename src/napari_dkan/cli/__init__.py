"""The command line: the jobs of the panel without a window."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..batch.slide_job import SlideJob, TilePitch, split_names
from ..errors import DkanError
from .batch_command import run_batch
from .cache_command import cache_app
from .crossval_command import run_crossval
from .doctor_command import run_doctor
from .encoders_command import encoders_app
from .evaluate_command import run_evaluate, run_zeroshot
from .export_command import run_export
from .finetune_command import run_finetune
from .genes_command import genes_app
from .report_command import run_report
from .shared_options import echo_log, job_checkpoint, resolve_checkpoint
from .train_command import run_reference, run_train

if TYPE_CHECKING:
    from ..inference.prediction_progress import PredictionUpdate


app = typer.Typer(
    help="Predict spatial gene expression from H&E with DKAN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def predict(
    slide: Annotated[str, typer.Argument(help="The H&E slide, or the address of an OME-Zarr.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .h5ad file to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the bundled one.")] = None,
    spots: Annotated[Path | None, typer.Option(help="Predict at the spots of this file.")] = None,
    regions: Annotated[Path | None, typer.Option(help="Predict inside: GeoJSON or a mask.")] = None,
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
    timing: Annotated[bool, typer.Option(help="Say at the end where the time went.")] = False,
) -> None:
    """Predict expression on a slide and write an AnnData."""
    from ..batch.predict_slide import predict_slide
    from ..errors import SpotsError

    if sum((spots is not None, regions is not None, tissue)) > 1:
        raise SpotsError("Give one of --spots, --regions and --tissue, not several.")
    job = SlideJob(
        slide,
        out,
        checkpoint=job_checkpoint(checkpoint),
        spots=spots,
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


@app.command()
def convert(
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


app.command("batch")(run_batch)
app.command("doctor")(run_doctor)
app.command("train")(run_train)
app.command("crossval")(run_crossval)
app.command("evaluate")(run_evaluate)
app.command("export")(run_export)
app.command("report")(run_report)
app.command("zeroshot")(run_zeroshot)
app.command("reference")(run_reference)
app.command("finetune")(run_finetune)
app.add_typer(genes_app, name="genes")
app.add_typer(cache_app, name="cache")
app.add_typer(encoders_app, name="encoders")


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A checkpoint.")]) -> None:
    """Print a checkpoint's card."""
    from ..model.checkpoint.checkpoint_card import describe_checkpoint
    from ..model.checkpoint.checkpoint_file import load_checkpoint

    typer.echo(describe_checkpoint(load_checkpoint(resolve_checkpoint(file))))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the screenshot and the result go.")] = Path(
        "build/demo"
    ),
    drive: Annotated[bool, typer.Option("--drive", help="Do it all by itself.")] = False,
) -> None:
    """Open napari on a section with a checkpoint; without a display, drive it and save."""
    from ..viewer.demo import run_demo

    run_demo(out, drive)


def main() -> None:
    """Run the command line; a DkanError is one sentence on stderr and exit code 2."""
    try:
        app()
    except DkanError as error:
        print(f"napari-dkan: {error}", file=sys.stderr)
        sys.exit(2)
