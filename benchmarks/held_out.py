"""Measured sections, predicted by a checkpoint that never saw them, and what may tell the error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dkan.expression.label_scale import PanelCounts
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
from napari_dkan.training.depth_metrics import depth_partial_pcc, regress_out_depth
from napari_dkan.training.fit.build_reference import add_reference
from napari_dkan.training.noise_ceiling import CEILING_SEED

SECTIONS = ("C2", "C3", "C4", "C5")
N_NOISE_DRAWS = 20
Numbers = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """N spots of a section and G genes.

    predicted, measured : (N, G) standardised by the training labels. depth : (N,) of the measured
    counts. noise : (N,) see `counting_noise`. signs : by name (N,), higher is worse.
    """

    name: str
    predicted: Numbers
    measured: Numbers
    depth: Numbers
    noise: Numbers
    signs: dict[str, Numbers]
    evidence: Numbers
    judged: Reliability

    @cached_property
    def error(self) -> Numbers:
        """(N,) mean squared error over the genes, after predicted and measured are each regressed
        on the depth: by this the score is judged."""
        return np.square(self._residual(self.predicted) - self._residual(self.measured)).mean(1)

    @property
    def beyond_noise(self) -> Numbers:
        """(N,) the error less what counting alone puts into it: of the prediction itself. It can
        be below 0 by chance."""
        return self.error - self.noise

    @cached_property
    def unlike(self) -> Numbers:
        """(N,) 1 minus the correlation over the genes of both residuals."""
        return 1 - _alike(self._residual(self.predicted), self._residual(self.measured))

    @cached_property
    def mse(self) -> Numbers:
        """(N,) mean squared error over the genes, depth included."""
        return np.square(self.predicted - self.measured).mean(axis=1)

    @property
    def mean_error(self) -> Numbers:
        """(N,) of saying every gene's training mean."""
        return np.square(self.measured).mean(axis=1)

    def partial_pcc(self, rows: NDArray[np.integer]) -> float:
        """Mean over the genes of the depth-partial PCC over some of the spots."""
        parts = (self.predicted[rows], self.measured[rows], self.depth[rows])
        return float(np.nanmean(depth_partial_pcc(*parts)))

    def _residual(self, values: Numbers) -> Numbers:
        return regress_out_depth(values, self.depth)


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
    found = (prediction.values[:, rows] - mean) / std
    reference, counts = checkpoint.reference, measured.labels.counts
    assert reference is not None and prediction.qc_features is not None
    evidence = prediction.qc_features
    signs = signs_of(reference, evidence, prediction.tokens)
    signs["predicted little"] = -found.mean(axis=1)
    return HeldOut(
        measured.name,
        found,
        (measured.labels.values - mean) / std,
        counts.depth,
        counting_noise(counts, std),
        signs,
        evidence,
        score_reliability(reference, evidence, prediction.tokens),
    )


def counting_noise(counts: PanelCounts, std: Numbers) -> Numbers:
    """(N,) mean over the genes of the squared error of depth residuals by counting alone.

    The counts of each spot are drawn again, given its total, with the proportions of its
    neighbourhood; labels are made of every draw by the recipe of the section's.
    """
    random = np.random.default_rng(CEILING_SEED)
    sums = counts.sum_over_neighbors(counts.values)
    proportions = sums / sums.sum(axis=1, keepdims=True)
    totals = np.rint(counts.totals).astype(np.int64)
    drawn = [random.multinomial(totals, proportions) for _ in range(N_NOISE_DRAWS)]
    labels = np.stack([replace(counts, values=d.astype(np.float32)).labels() for d in drawn]) / std
    apart = [regress_out_depth(values, counts.depth) for values in labels - labels.mean(axis=0)]
    return (np.square(apart).sum(axis=0) / (N_NOISE_DRAWS - 1)).mean(axis=1)


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
