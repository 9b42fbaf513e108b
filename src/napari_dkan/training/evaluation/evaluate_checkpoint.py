"""Evaluate a checkpoint and baselines on a measured section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SlideError, SpotsError
from ...expression.readers.read_account import account_of
from ...inference.predict import find_tissue_region, predict
from ...inference.prediction import Prediction
from ...inference.predictor import Predictor
from ...inference.section_choices import FROM_FILES, SectionChoices
from ...inference.section_pixel_size import enter_pixel_size, resolve_section_pixel_size
from ...inference.slide_account import account_for_slide
from ...inference.target import target_from_spots
from ...model.checkpoint.checkpoint_card import is_trained_on
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...slide import PixelSize, Slide
from ..baselines import BASELINES
from ..data.measured_section import MeasuredSection, select_panel_genes
from ..data.prepared_section import EncodedSection, list_accounts
from ..data.section_loading import CheckpointSectionReader, read_section_data
from ..depth_reference import describe_shallow_section, make_depth_reference
from ..metrics import FloatingArray, round_or_none
from ..prediction_scores import DEPTH_ALONE, score_depth_alone, score_predictions
from ..train_settings import LogFunction, ignore_log
from .crossval_report import summarize_scores, tabulate_depth_partial

if TYPE_CHECKING:
    from anndata import AnnData


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    slide: Slide,
    measured: MeasuredSection,
    mpp: float | None = None,
    *,
    baselines: Sequence[str] = (),
    train_data: str | Path | None = None,
    train_sections: Sequence[str] | None = None,
    train_choices: SectionChoices = FROM_FILES,
    device: str | None = None,
    encoder_weights: Path | None = None,
    log: LogFunction = ignore_log,
) -> dict[str, Any]:
    """Evaluate the checkpoint and, with training data, the training mean and the baselines.

    Parameters
    ----------
    mpp
        Pixel size of the slide, where it is known better than by metadata or spot array. It
        says nothing about the training sections, which are other slides.
    train_data, train_sections, train_choices
        See `section_loading.read_section_data`.

    Returns
    -------
    The report as plain JSON.

    Raises
    ------
    SpotsError
        When spots are off the slide or the pixel size is unknown.
    """
    if baselines and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    size = resolve_pixel_size(slide, measured, mpp)
    predictor = Predictor(
        slide, checkpoint, size.mpp, find_tissue_region(slide, size.mpp), device, encoder_weights
    )
    prediction = predict_measured_spots(predictor, measured, size)
    values = prediction.values[:, list(measured.panel_rows)]
    predicted: dict[str, FloatingArray] = {checkpoint.network.config.method: values}
    train_accounts: dict[str, Any] = {}
    if train_data is not None:
        methods = ("training_mean", *(b for b in baselines if b != "training_mean"))
        reader = CheckpointSectionReader(checkpoint, encoder_weights, device, train_choices)
        training_data = read_section_data(train_data, train_sections, train_choices)
        training, test = _encode_sections(reader, training_data, measured, size, log)
        predicted |= {m: np.asarray(BASELINES[m].fit(training)(test), np.float32) for m in methods}
        train_accounts = list_accounts([s.section for s in training])
    labels, counts = {measured.name: measured.labels.values}, measured.labels.counts
    references = {measured.name: make_depth_reference(checkpoint.card, counts, measured.panel)}
    scores = {
        m: score_predictions({measured.name: p}, labels, references) for m, p in predicted.items()
    }
    scores[DEPTH_ALONE] = score_depth_alone(labels, references)
    n_spots, symbols = len(prediction.target), measured.panel.symbols
    account = account_for_slide(account_of(measured.data), slide, size.mpp, size.origin)
    return {
        "format": 1,
        "kind": "evaluation",
        "section": measured.name,
        "slide": slide.label,
        "mpp": size.mpp,
        "mpp_origin": size.origin,
        "seen_in_training": is_trained_on(checkpoint.card, slide.fingerprint()),
        "shallow": describe_shallow_section(checkpoint.card, counts, measured.panel),
        "median_panel_total": counts.median_total,
        "spots": n_spots,
        "spots_dropped_without_panel_counts": list(measured.labels.dropped_spots),
        "genes": len(measured.panel),
        "genes_missing": list(measured.missing_genes),
        "label_scale": checkpoint.label_scale.name,
        "metrics": {m: summarize_scores(s, n_spots) for m, s in scores.items()},
        "per_gene_pcc": {
            symbol: {m: round_or_none(s.pcc_per_gene[i], 4) for m, s in scores.items()}
            for i, symbol in enumerate(symbols)
        },
        "per_gene_depth_partial": tabulate_depth_partial(scores, symbols),
        "checkpoint": {"title": checkpoint.title, "sha256": checkpoint.sha256},
        "train_sections": list(train_sections or ()),
        "read_account": account.to_dict(),
        "train_read_accounts": train_accounts,
    }


def predict_measured_spots(
    predictor: Predictor, measured: MeasuredSection, size: PixelSize
) -> Prediction:
    """Predict all genes of the checkpoint at the labelled spots of a section.

    Raises
    ------
    SpotsError
        When spots are off the slide.
    SlideError
        When the slide is damaged at some spots.
    """
    slide = predictor.slide
    spots, size_px = measured.labeled_spots(), (slide.width, slide.height)
    target = target_from_spots(spots, *size_px, measured.name, slide.scan_area)
    prediction = predict(predictor, target, size.origin)
    if prediction.failed_mask.any():
        raise SlideError(
            f"{int(prediction.failed_mask.sum()):,} of {len(target):,} spots on {slide.label} "
            "cannot be read: the slide is damaged there; export it again."
        )
    return prediction


def _encode_sections(
    reader: CheckpointSectionReader,
    training_data: Sequence[AnnData],
    measured: MeasuredSection,
    size: PixelSize,
    log: LogFunction,
) -> tuple[list[EncodedSection], EncodedSection]:
    """Read the training sections, and the measured one at its pixel size, as baselines do."""
    test_data = measured.data.copy()
    enter_pixel_size(test_data, size.mpp, size.origin)
    encoded = []
    for data in [
        *(select_panel_genes(section, measured.panel)[0] for section in training_data),
        test_data,
    ]:
        encoded.append(reader.read(data, measured.panel))
        log(f"{encoded[-1].section.name}: {len(encoded[-1].section)} spots")
    *training, test = encoded
    return training, test


def resolve_pixel_size(slide: Slide, measured: MeasuredSection, mpp: float | None) -> PixelSize:
    """Resolve the pixel size of a slide and a measured section.

    The origins are those of `slide.pixel_size.resolve_pixel_size`.

    Raises
    ------
    SpotsError
        The pixel size is unknown.
    SlideError
        Two origins are more than 10 % apart.
    """
    pixel_size = resolve_section_pixel_size(slide, measured.data.uns, mpp)
    if pixel_size is None:
        raise SpotsError(
            f"{slide.label} does not state its pixel size, and the spots are on no array of "
            "known pitch; give it with --mpp, in micrometres per pixel."
        )
    return pixel_size
