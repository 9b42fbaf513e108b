"""Evaluate a checkpoint and baselines on a measured section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SlideError, SpotsError
from ...inference.device import pick_device
from ...inference.predict import find_tissue_region, predict
from ...inference.prediction import Prediction
from ...inference.predictor import Predictor
from ...inference.target import target_from_spots
from ...model.checkpoint.checkpoint_card import is_trained_on
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.encoders import STAIN_ENCODER
from ...slide import PixelSize, Slide
from ..baselines import BASELINES
from ..data.frozen_features import FrozenEncoder
from ..data.measured_section import (
    MeasuredSection,
    finite_or_none,
    rename_to_panel_symbols,
)
from ..data.prepared_section import EncodedSection, PreparedSection, encode_section
from ..data.section_loading import load_section, read_section_data
from ..metrics import FloatingArray, score_predictions
from ..train_settings import TrainSettings
from .crossval import DKAN_METHOD
from .crossval_report import compute_fold_metrics

if TYPE_CHECKING:
    from anndata import AnnData


LogFunction = Callable[[str], None]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    slide: Slide,
    measured: MeasuredSection,
    mpp: float | None = None,
    *,
    baselines: Sequence[str] = (),
    train_data: str | Path | None = None,
    train_sections: Sequence[str] | None = None,
    device: str | None = None,
    encoder_weights: Path | None = None,
    log: LogFunction = lambda line: None,
) -> dict[str, Any]:
    """The report: DKAN, and with training data the training mean and the baselines, as JSON.

    mpp : of the slide where it is known better than by its metadata or the spot array.

    Raises SpotsError when spots lie off the slide or the pixel size is unknown.
    """
    if baselines and train_data is None:
        raise SpotsError("A baseline has to be trained: give --train-data, and --train-sections.")
    size = resolve_pixel_size(slide, measured, mpp)
    predictor = Predictor(
        slide, checkpoint, size.mpp, find_tissue_region(slide, size.mpp), device, encoder_weights
    )
    prediction = predict_measured_spots(predictor, measured, size)
    values = prediction.values[:, list(measured.panel_rows)]
    predicted: dict[str, FloatingArray] = {DKAN_METHOD: values}
    if train_data is not None:
        for method, given in _predict_with_baselines(
            checkpoint,
            measured,
            size,
            train_data,
            train_sections,
            ("training_mean", *(b for b in baselines if b != "training_mean")),
            device,
            encoder_weights,
            log,
        ).items():
            predicted[method] = given
    labels = {measured.name: measured.labels.values}
    each = {
        m: score_predictions({measured.name: p}, labels).pcc_per_gene for m, p in predicted.items()
    }
    return {
        "format": 1,
        "kind": "evaluation",
        "section": measured.name,
        "slide": slide.label,
        "mpp": size.mpp,
        "mpp_origin": size.origin,
        "seen_in_training": is_trained_on(checkpoint.card, slide.fingerprint()),
        "spots": len(prediction.target),
        "spots_dropped_without_panel_counts": list(measured.labels.dropped_spots),
        "genes": len(measured.panel),
        "genes_missing": list(measured.missing_genes),
        "label_scale": checkpoint.label_scale.name,
        "metrics": {
            m: compute_fold_metrics({measured.name: p}, labels) for m, p in predicted.items()
        },
        "per_gene_pcc": {
            symbol: {m: _round_or_none(values[i]) for m, values in each.items()}
            for i, symbol in enumerate(measured.panel.symbols)
        },
        "checkpoint": {"title": checkpoint.title, "sha256": checkpoint.sha256},
        "train_sections": list(train_sections or ()),
    }


def predict_measured_spots(
    predictor: Predictor, measured: MeasuredSection, size: PixelSize
) -> Prediction:
    """All genes of the checkpoint at the labelled spots of a section.

    Raises SpotsError when spots lie off the slide, SlideError when it is damaged at some.
    """
    slide = predictor.slide
    target = target_from_spots(measured.labeled_spots(), slide.width, slide.height, measured.name)
    prediction = predict(predictor, target, size.origin)
    if prediction.failed_mask.any():
        raise SlideError(
            f"{int(prediction.failed_mask.sum()):,} of {len(target):,} spots on {slide.label} "
            "cannot be read: the slide is damaged there; export it again."
        )
    return prediction


def _predict_with_baselines(
    checkpoint: Checkpoint,
    measured: MeasuredSection,
    size: PixelSize,
    train_data: str | Path,
    train_sections: Sequence[str] | None,
    methods: Sequence[str],
    device: str | None,
    weights: Path | None,
    log: LogFunction,
) -> dict[str, FloatingArray]:
    """Fitted on the training sections, on the checkpoint's own features; (N, G) by method."""
    encoder = checkpoint.build_tile_encoder(weights)
    picked = pick_device(device)
    named = None
    if checkpoint.encoder.name != STAIN_ENCODER:
        named = FrozenEncoder(encoder.to(picked), picked)
    settings = TrainSettings(
        patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
    )

    def prepared(data: AnnData) -> EncodedSection:
        section = load_section(
            data, measured.panel, settings, named, checkpoint.label_scale, checkpoint.stain
        )
        log(f"{section.name}: {len(section)} spots")
        return _encode_section(section, encoder)

    training = [
        prepared(rename_to_panel_symbols(data, measured.panel))
        for data in read_section_data(train_data, train_sections)
    ]
    own = measured.data.copy()
    own.uns["mpp"] = size.mpp
    test = prepared(own)
    return {m: np.asarray(BASELINES[m].fit(training)(test), np.float32) for m in methods}


def _encode_section(section: PreparedSection, encoder: Any) -> EncodedSection:
    return encode_section(section, encoder)


def resolve_pixel_size(slide: Slide, measured: MeasuredSection, mpp: float | None) -> PixelSize:
    """As given by hand, else as the slide states it, else as the spot array fits it, else as
    the slide's objective lets one estimate.

    Raises SpotsError when none of them tells.
    """
    if mpp is not None:
        return PixelSize(mpp, "entered by hand")
    stated = slide.pixel_size
    if stated is not None and not stated.is_estimated:
        return stated
    fitted = finite_or_none(measured.data.uns.get("mpp"))
    if fitted is None and stated is not None:
        return stated
    if fitted is None:
        raise SpotsError(
            f"{slide.label} does not state its pixel size, and the spots are on no array of "
            "known pitch; give it with --mpp, in micrometres per pixel."
        )
    return PixelSize(fitted, str(measured.data.uns.get("mpp_origin") or "spot array"))


def _round_or_none(value: float) -> float | None:
    return None if value != value else round(float(value), 4)
