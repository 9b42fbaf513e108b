"""The command line: the same jobs as the panel, without a window."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import DkanError
from .inference.store.command import cache_app
from .quality.report.command import report_command
from .training.command import train_command
from .training.crossval_command import crossval_command
from .training.evaluate_command import evaluate_command
from .training.genes_command import genes_app
from .training.reference_command import reference_command
from .training.tuning.command import finetune_command
from .training.zeroshot_command import zeroshot_command

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from .inference.job import Update
    from .inference.zero_shot import ZeroShotGenes
    from .model import Checkpoint
    from .slide import PixelSize, Slide
    from .spatial.spots import Spots


class Pitch(StrEnum):
    """Distance between the tiles of a grid."""

    training = "training"  # as the spots the checkpoint was trained on
    dense = "dense"  # the patches touch


app = typer.Typer(
    help="Predict spatial gene expression from H&E with DKAN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def predict(
    slide: Annotated[Path, typer.Argument(help="The H&E slide.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .h5ad file to write.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the bundled one.")] = None,
    spots: Annotated[Path | None, typer.Option(help="Predict at the spots of this file.")] = None,
    regions: Annotated[Path | None, typer.Option(help="Predict inside this GeoJSON.")] = None,
    tissue: Annotated[bool, typer.Option("--tissue", help="The whole tissue (default).")] = False,
    tissue_only: Annotated[bool, typer.Option(help="Leave out tiles off the tissue.")] = True,
    pitch: Annotated[Pitch, typer.Option(help="Distance between tiles.")] = Pitch.training,
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
    timing: Annotated[bool, typer.Option(help="Say at the end where the time went.")] = False,
) -> None:
    """Predict expression on a slide and write an AnnData."""
    from .errors import SlideError, SpotsError
    from .export.anndata import to_anndata, write_h5ad
    from .expression.spotfile import read_spots
    from .inference.engine import Predictor
    from .inference.predict import predict as run
    from .inference.predict import tissue_region
    from .inference.target import region_target, spots_target
    from .model import load_checkpoint
    from .quality.reliability import judge
    from .samples.bundled import bundled_checkpoint
    from .slide import open_slide

    if sum((spots is not None, regions is not None, tissue)) > 1:
        raise SpotsError("Give one of --spots, --regions and --tissue, not several.")
    model = load_checkpoint(checkpoint or bundled_checkpoint("her2-breast"))
    wanted = None if genes is None else [g.strip() for g in genes.split(",") if g.strip()]
    model.panel.rows(wanted or [])  # an unknown gene is told before anything is computed
    new = None
    if zero_shot is not None:
        new = _zero_shot(model, zero_shot, allow_unproven)
        if wanted is not None:
            wanted = list(dict.fromkeys([*wanted, *new.in_panel]))
    with open_slide(slide) as opened:
        measured = None if spots is None else read_spots(spots)
        size = _pixel_size(opened, mpp, measured)
        found = tissue_region(opened, size.mpp)
        if spots is not None and measured is not None:
            target = spots_target(measured, opened.width, opened.height, spots.name)
        else:
            pitch_um = {Pitch.training: model.spot_pitch_um, Pitch.dense: model.patch.um}[pitch]
            region = _region(opened, regions, found)
            limit = found if tissue_only else None
            target = region_target(region, pitch_um, size.mpp, opened.width, opened.height, limit)
        predictor = Predictor(opened, model, size.mpp, found, device, encoder_weights, store)
        with _progress(len(target)) as advance:
            prediction = run(predictor, target, size.origin, wanted, advance, new)
        failed = int(prediction.failed.sum())
        prediction = prediction.finished()
        if not len(prediction.target):
            raise SlideError(
                f"None of the {failed:,} spots on {slide.name} could be read: the slide is "
                "damaged; export it again."
            )
        reliability = None
        if model.reference is not None:
            reliability = judge(model.reference, prediction.evidence, prediction.tokens)
        write_h5ad(to_anndata(prediction, opened, reliability), out)
    if failed:
        typer.echo(f"{failed:,} spots left out: {slide.name} is damaged there.", err=True)
    if predictor.kept.warning:
        typer.echo(predictor.kept.warning, err=True)
    if timing:
        typer.echo(predictor.stages.report(), err=True)
    if reliability is not None and reliability.unreliable.any():
        count = int(reliability.unreliable.sum())
        typer.echo(f"{count:,} of them should not be relied on: see obs['unreliable']", err=True)
    typer.echo(f"{len(prediction.target):,} spots x {len(prediction.panel)} genes written to {out}")


def _zero_shot(model: Checkpoint, asked: str, allow_unproven: bool) -> ZeroShotGenes:
    """Genes of ``FILE`` or ``FILE:A,B``; what of them is in the panel is told and needs no text."""
    from .inference.zero_shot import expectation, zero_shot_genes

    file, _, named = asked.rpartition(":")
    if not file or Path(asked).exists() or Path(asked).suffix == ".safetensors":
        file, named = asked, ""
    symbols = [s.strip() for s in named.split(",") if s.strip()] or None
    new = zero_shot_genes(model, file, symbols, allow_unproven)
    if new.in_panel:
        shown = ", ".join(new.in_panel[:5]) + (", ..." if len(new.in_panel) > 5 else "")
        typer.echo(f"in the panel, predicted as trained: {shown}", err=True)
    typer.echo(f"{len(new.genes)} genes zero-shot: {expectation(model).sentence}", err=True)
    return new


def _region(slide: Slide, regions: Path | None, tissue: BaseGeometry) -> BaseGeometry:
    from .errors import SpotsError
    from .spatial.regions import read_geojson

    if regions is not None:
        return read_geojson(regions)
    if tissue.is_empty:
        raise SpotsError(
            f"No tissue was found on {slide.path.name}; give --regions or --spots instead."
        )
    return tissue


def _pixel_size(slide: Slide, mpp: float | None, spots: Spots | None) -> PixelSize:
    """What was given by hand, else the slide's metadata, else the pitch of the spot array."""
    from .errors import SlideError
    from .expression.arrayfit import array_mpp
    from .slide import PixelSize

    if mpp is not None:
        return PixelSize(mpp, "entered by hand")
    if slide.pixel_size is not None:
        return slide.pixel_size
    fitted = None if spots is None else array_mpp(spots)
    if fitted is None:
        raise SlideError(
            f"{slide.path.name} does not state its pixel size; give it with --mpp, "
            "in micrometres per pixel (0.25 for a 40x scan, 0.5 for 20x)."
        )
    return PixelSize(fitted, "spot array")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Update], None]]:
    from tqdm import tqdm

    with tqdm(total=total, unit="tile", desc="reading the slide", disable=None) as bar:

        def advance(update: Update) -> None:
            if update.stage == "context":  # of the tiles that come next
                bar.set_description(f"reading the slide ({update.done}/{update.total})")
            else:
                bar.set_description("predicting")
                bar.n = update.done
            bar.refresh()

        yield advance


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
    from .expression.genetable import annotate_from
    from .model.published import convert_published

    converted = convert_published(
        ckpt,
        genes,
        gene_features,
        out,
        patch_um=patch_um,
        encoder=encoder,
        annotate=None if gene_tables is None else lambda panel: annotate_from(panel, gene_tables),
        title=title,
    )
    typer.echo(f"{len(converted.panel)} genes, written to {out}")


app.command("train")(train_command)
app.command("crossval")(crossval_command)
app.command("evaluate")(evaluate_command)
app.command("report")(report_command)
app.command("zeroshot")(zeroshot_command)
app.command("reference")(reference_command)
app.command("finetune")(finetune_command)
app.add_typer(genes_app, name="genes")
app.add_typer(cache_app, name="cache")


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A checkpoint.")]) -> None:
    """Print a checkpoint's card."""
    from .model.checkpoint import describe, load_checkpoint

    typer.echo(describe(load_checkpoint(file)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the screenshot and the result go.")] = Path(
        "build/demo"
    ),
    drive: Annotated[bool, typer.Option("--drive", help="Do it all by itself.")] = False,
) -> None:
    """Open napari on a section with a checkpoint; without a display, drive it and save."""
    from .viewer.demo import run

    run(out, drive)


def main() -> None:
    """Entry point: errors a person can act on are one sentence on stderr, exit code 2."""
    try:
        app()
    except DkanError as error:
        print(f"napari-dkan: {error}", file=sys.stderr)
        sys.exit(2)
