"""Measured sections, predicted by a checkpoint that never saw them, and what may tell the error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_spots
from napari_dkan.inference.tile_qc_features import QC_FEATURE_NAMES
from napari_dkan.model import Checkpoint, load_checkpoint
from napari_dkan.model.checkpoint.training_reference import DISTANCE_FEATURE, TrainingReference
from napari_dkan.quality.reliability import Reliability, compute_risk_term, score_reliability
from napari_dkan.slide import open_slide
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.data.section_loading import read_section_data
from napari_dkan.training.depth_metrics import regress_out_depth
from napari_dkan.training.fit.build_reference import add_reference

SECTIONS = ("C2", "C3", "C4", "C5")
Numbers = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """N spots of a section.

    mse : (N,) mean squared error over the genes, standardised by the training labels. unlike :
    (N,) 1 minus the correlation over the genes of predicted and measured, each gene relative to
    its mean over the section. signs : by name (N,), higher is worse. total : (N,) mean measured
    label of the spot, standardised: how much was caught there on the whole.
    """

    name: str
    mse: Numbers
    unlike: Numbers
    signs: dict[str, Numbers]
    total: Numbers
    evidence: Numbers
    judged: Reliability
    mean_error: Numbers  # of saying every gene's training mean
    mse_beside_depth: Numbers  # as mse, after depth is regressed out of predicted and measured


def checkpoint_without(folds: Path, section: str, data: Path) -> Checkpoint:
    """The fold that never saw the section, with its reference."""
    checkpoint = load_checkpoint(folds / f"without-{section}.safetensors")
    if checkpoint.reference is not None:
        return checkpoint
    others = [name for name in SECTIONS if name != section]
    return add_reference(checkpoint, data, others)


def held_out(
    checkpoint: Checkpoint, data: Path, section: str, image: Path | None = None
) -> HeldOut:
    """The section through the engine, as in the viewer; image : another look at its slide."""
    (given,) = read_section_data(data, [section])
    return held_out_of(checkpoint, given, image)


def held_out_of(checkpoint: Checkpoint, given: Any, image: Path | None = None) -> HeldOut:
    measured = make_measured_section(given, checkpoint)
    mpp = float(given.uns["mpp"])
    with open_slide(image or given.uns["image"]) as slide:
        target = target_from_spots(
            measured.labeled_spots(), slide.width, slide.height, measured.name
        )
        predictor = Predictor(slide, checkpoint, mpp, find_tissue_region(slide, mpp))
        prediction = predict(predictor, target)
    rows = list(measured.panel_rows)
    std = checkpoint.network.label_std.numpy()[rows]
    mean = checkpoint.network.label_mean.numpy()[rows]
    wanted = (measured.labels.values - mean) / std
    found = (prediction.values[:, rows] - mean) / std
    reference = checkpoint.reference
    assert reference is not None and prediction.qc_features is not None
    evidence = prediction.qc_features
    signs = signs_of(reference, evidence, prediction.tokens)
    signs["predicted little"] = -found.mean(axis=1)
    return HeldOut(
        measured.name,
        np.square(found - wanted).mean(axis=1),
        1 - _alike(found - found.mean(axis=0), wanted - wanted.mean(axis=0)),
        signs,
        wanted.mean(axis=1),
        evidence,
        score_reliability(reference, evidence, prediction.tokens),
        np.square(wanted).mean(axis=1),
        np.square(regress_out_depth(found - wanted, measured.labels.counts.depth)).mean(axis=1),
    )


def signs_of(
    reference: TrainingReference, evidence: Numbers, tokens: Numbers
) -> dict[str, Numbers]:
    """Each candidate in the standard deviations of the training spots, higher is worse."""
    noted = {name: evidence[:, i] for i, name in enumerate(QC_FEATURE_NAMES)}
    noted[DISTANCE_FEATURE] = reference.compute_distance(tokens)
    made = {
        "distance": compute_risk_term(reference, DISTANCE_FEATURE, noted[DISTANCE_FEATURE]),
        "members": compute_risk_term(reference, "members", noted["members"]),
        "heads": compute_risk_term(reference, "heads", noted["heads"]),
        "blur": -_apart(reference, "sharpness", noted["sharpness"]),
        "little tissue": -_apart(reference, "tissue", noted["tissue"]),
        "pen": _apart(reference, "pen", noted["pen"]),
        "dark": _apart(reference, "dark", noted["dark"]),
    }
    stains = ("haematoxylin", "eosin", "residual")
    made["stain"] = np.max([np.abs(_apart(reference, n, noted[n])) for n in stains], axis=0)
    return made


def _apart(reference: TrainingReference, name: str, values: Numbers) -> Numbers:
    levels = reference.feature_quantiles[reference.feature_names.index(name)]
    return (values - levels[50]) / max(float(levels[84] - levels[16]) / 2, 0.01)


def _alike(a: Numbers, b: Numbers) -> Numbers:
    """Correlation of the rows of (N, G) and (N, G): (N,)."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return (a * b).sum(axis=1) / np.maximum(norm, 1e-12)


def curve(risk: Numbers, error: Numbers) -> Numbers:
    """Mean error of the 1, 2, ... N spots of least risk."""
    order = np.argsort(risk, kind="stable")
    return np.cumsum(error[order]) / np.arange(1, len(error) + 1)


def gain(risk: Numbers, error: Numbers) -> float:
    """How much of the way from random (0) to knowing the errors (1) the area under the
    risk-coverage curve goes."""
    chance, best = error.mean(), curve(error, error).mean()
    return float((chance - curve(risk, error).mean()) / (chance - best))
