"""`napari-dkan report`: write the report of one section, measured or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..atomic_write import require_output_folder
from ..batch.slide_job import split_names
from ..errors import SlideError, SpotsError
from .option_groups import MeasuredOptions, with_option_groups
from .shared_options import (
    COUNTS_OPTION,
    CheckpointOption,
    DeviceOption,
    EncoderWeightsOption,
    checkpoint_word,
    format_command_line,
    resolve_checkpoint,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from ..inference.prediction import Prediction
    from ..inference.predictor import Predictor
    from ..quality.comparison import Comparison
    from ..slide import PixelSize, Slide
    from ..training.data.measured_section import MeasuredSection


@with_option_groups
def run_report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page (.html).", show_default=False)],
    measured_options: MeasuredOptions,
    slide: Annotated[
        Path | None, typer.Argument(help="The H&E slide; the same as --image.")
    ] = None,
    counts: Annotated[Path | None, COUNTS_OPTION] = None,
    section: Annotated[
        str | None, typer.Option(metavar="FOLDER:NAME", help="A section of a folder instead.")
    ] = None,
    checkpoint: CheckpointOption = "bundled",
    genes: Annotated[
        str | None,
        typer.Option(help="Maps of these, comma-separated; default some known, best and worst."),
    ] = None,
    device: DeviceOption = None,
    encoder_weights: EncoderWeightsOption = None,
) -> None:
    """Write a page about a section that anybody can read: maps, figures, how far to trust it.

    Without counts it has the predicted maps of the whole tissue and their reliability.
    """
    from ..inference.predict import find_tissue_region
    from ..inference.predictor import Predictor
    from ..model import load_checkpoint
    from ..quality.report.report_page import write_report
    from ..training.data.measured_section import make_measured_section

    require_output_folder(out)
    model = load_checkpoint(resolve_checkpoint(checkpoint))
    symbols = split_names(genes) or ()
    model.panel.rows(symbols)  # an unknown gene is an error before anything is computed
    options = replace(measured_options, image=slide or measured_options.image)
    data = _read_measured_section(options, counts, section)
    measured = None if data is None else make_measured_section(data, model, options.few_genes)
    path = options.image or Path("" if data is None else str(data.uns["image"]))
    with options.open_slide(path) as opened:
        size = _find_pixel_size(opened, measured, options.mpp)
        tissue = find_tissue_region(opened, size.mpp)
        predictor = Predictor(opened, model, size.mpp, tissue, device, encoder_weights)
        if measured is None:
            prediction, comparison = _predict_whole_tissue(predictor, tissue, size), None
        else:
            comparison = _predict_and_compare(predictor, measured, size)
            prediction = comparison.prediction
        written = write_report(
            out,
            slide=opened,
            checkpoint=model,
            prediction=prediction,
            comparison=comparison,
            genes=symbols,
            warnings=_registration_warnings(opened, measured, size, tissue),
            command=format_command_line(
                "report",
                counts=counts,
                **(options.command_words() | {"image": path}),
                section=None if section is None else Path(section),
                checkpoint=checkpoint_word(checkpoint),
                genes=genes,
            ),
        )
    if comparison is None:
        typer.echo(f"{len(prediction.target):,} tiles and {len(prediction.panel)} genes predicted")
    else:
        if comparison.shallow:
            typer.echo(comparison.shallow)
        typer.echo(f"{comparison.name}: {comparison.summary.format_verdict()}")
    typer.echo(f"written to {written}")


def _read_measured_section(
    options: MeasuredOptions, counts: Path | None, section: str | None
) -> AnnData | None:
    """Read the measured section; None without counts. Raises SpotsError."""
    from ..expression.readers.discovery import read_sections

    if section is not None:
        if counts is not None or options.spots is not None:
            raise SpotsError("Give --section, or --counts and --spots, not both.")
        folder, _, name = section.rpartition(":")
        if not folder or Path(section).exists():  # a file of one section, or a Windows path
            folder, name = section, ""
        (data, *more) = read_sections(folder, [name] if name else None)
        if more:
            raise SpotsError(f"{folder} holds {len(more) + 1} sections; name one as {folder}:NAME.")
        data.uns["image"] = str(options.image or data.uns["image"])
        if not data.uns["image"]:
            raise SpotsError(f"{section} has no image beside it; give the slide by --image.")
        return options.choose_image(data)
    if counts is not None:
        return options.read_section(counts)
    if options.spots is not None:
        raise SpotsError("--spots says where counts were taken; give them by --counts.")
    if options.image is None:
        raise SlideError("Give a slide, or a measured section by --section or --counts.")
    return None


def _find_pixel_size(
    slide: Slide, measured: MeasuredSection | None, mpp: float | None
) -> PixelSize:
    from ..batch.predict_slide import find_pixel_size
    from ..training.evaluation.evaluate_checkpoint import resolve_pixel_size

    if measured is None:
        return find_pixel_size(slide, mpp)
    return resolve_pixel_size(slide, measured, mpp)


def _predict_and_compare(
    predictor: Predictor, measured: MeasuredSection, size: PixelSize
) -> Comparison:
    from ..inference.predict import predict_ridge
    from ..quality.comparison import compare_with_measured
    from ..training.evaluation.evaluate_checkpoint import predict_measured_spots

    prediction = predict_measured_spots(predictor, measured, size)
    ridge = predict_ridge(predictor.prediction_context, measured.labeled_spots())
    return compare_with_measured(predictor.checkpoint, measured, prediction, ridge)


def _predict_whole_tissue(
    predictor: Predictor, tissue: BaseGeometry, size: PixelSize
) -> Prediction:
    """Predict at the pitch of the training spots; raises SpotsError where there is no tissue."""
    from ..inference.predict import predict
    from ..inference.target import target_from_region

    slide, pitch = predictor.slide, predictor.checkpoint.spot_pitch_um
    if tissue.is_empty:
        raise SpotsError(f"No tissue was found on {slide.label}, so nothing is predicted.")
    target = target_from_region(tissue, pitch, size.mpp, slide.width, slide.height)
    return predict(predictor, target, size.origin).select_predicted()


def _registration_warnings(
    slide: Slide, measured: MeasuredSection | None, size: PixelSize, tissue: BaseGeometry
) -> tuple[str, ...]:
    """List the warnings at the top of the page: misplaced spots."""
    from ..quality.registration_check import check_registration

    if measured is None:
        return ()
    check = check_registration(
        measured.labeled_spots(), slide.width, slide.height, size.mpp, tissue
    )
    return (check.warning,) if check.warning else ()
