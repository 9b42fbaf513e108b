"""How far to trust the prediction of each tile, without measurements.

The score was made against measurements: on held-out sections the spots that score low have the
larger errors, by how much is in docs/trust.md. What did not help there is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.tile_qc_features import QC_FEATURE_NAMES
from ..model.checkpoint.training_reference import DISTANCE_FEATURE, TrainingReference

# What the risk is the mean of: each as the logarithm's distance from the median of the training
# spots, in their standard deviations. Chosen on held-out sections, see benchmarks/reliability.py.
RISK_TERMS = (DISTANCE_FEATURE, "members")
# Tenths of the risk over the spots of C2 to C5, each held out; a score says where between them.
HELD_OUT_RISK_DECILES = (-1.56, -0.96, -0.63, -0.34, -0.09, 0.16, 0.44, 0.79, 1.27, 1.74, 3.11)
DECILES = np.linspace(0, 1, len(HELD_OUT_RISK_DECILES))
POOR_BELOW, FAIR_BELOW = 0.1, 0.5  # scores below which a tile is unreliable, and only fair

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class TileArtifact:
    """Something wrong with a tile's pixels: more (or less) of it than any training spot had.

    margin : by how much more a tile is ruined. from_ : so much is usual whatever the training.
    """

    name: str
    is_excess: bool
    margin: float
    description: str
    always_normal: float | None = None


TILE_ARTIFACTS = (
    TileArtifact("tissue", False, 0.25, "little tissue", always_normal=0.5),
    TileArtifact("sharpness", False, 0.2, "out of focus"),
    TileArtifact("pen", True, 0.1, "a colour that is no stain: pen, or something on the glass"),
    TileArtifact("dark", True, 0.25, "nearly black: ink, a fold or a pigment"),
)
REASON_TEXTS = {
    DISTANCE_FEATURE: "unlike the tissue of the training slides",
    "members": "the networks of the ensemble disagree",
} | {sign.name: sign.description for sign in TILE_ARTIFACTS}


@dataclass(frozen=True, eq=False)
class Reliability:
    """score : (N,) 0..1, higher is more to be trusted; NaN where nothing is predicted or the
    checkpoint has no reference. unreliable : (N,) those of score below 0.1.
    concerns : by name (N,) how much each thing speaks against a tile; from 1 on it is told.
    """

    score: Float32Array
    unreliable: NDArray[np.bool_]
    concerns: Mapping[str, Float32Array]

    def reasons(self, row: int) -> tuple[str, ...]:
        """What speaks against a tile in plain words, worst first; () when all is well."""
        if not self.score[row] < FAIR_BELOW:
            return ()
        found = {name: float(values[row]) for name, values in self.concerns.items()}
        worst = sorted(found, key=lambda name: -found[name])
        told = [name for name in worst if found[name] >= 1] or worst[:1]
        return tuple(REASON_TEXTS[name] for name in told)

    def level(self, row: int) -> str:
        """good, fair or poor; "" where there is no score."""
        return reliability_level(float(self.score[row]))


def reliability_level(score: float) -> str:
    """good, fair or poor; "" for NaN."""
    if np.isnan(score):
        return ""
    return "poor" if score < POOR_BELOW else "fair" if score < FAIR_BELOW else "good"


def score_reliability(
    reference: TrainingReference | None,
    qc_features: NDArray[np.floating],
    tokens: NDArray[np.floating],
) -> Reliability:
    """Of N tiles by what was noted of them (N, E) and their fused tokens (N, D).

    A score is the share of held-out spots of the training tissue that were riskier; signs of
    something wrong with the pixels lower it. NaN rows were not predicted.
    """
    count = len(qc_features)
    if reference is None or not count:
        return Reliability(np.full(count, np.nan, np.float32), np.zeros(count, bool), {})
    noted = {
        name: np.asarray(qc_features[:, i], np.float32) for i, name in enumerate(QC_FEATURE_NAMES)
    }
    noted[DISTANCE_FEATURE] = reference.compute_distance(tokens)
    risks = {
        name: compute_risk_term(reference, name, noted[name])
        for name in RISK_TERMS
        if _is_informative(reference, name)
    }
    concerns = {
        name: risk / _risk_at_95th_percentile(reference, name) for name, risk in risks.items()
    }
    total = np.mean(list(risks.values()), axis=0)
    score: Float32Array = np.asarray(
        1 - np.interp(total, HELD_OUT_RISK_DECILES, DECILES), np.float32
    )
    for sign in TILE_ARTIFACTS:
        if sign.name in reference.feature_names:
            excess = compute_artifact_excess(reference, sign, noted[sign.name])
            concerns[sign.name] = 2 * excess  # half way to ruined is told
            score = score * (1 - excess)
    score = np.where(np.isfinite(noted[DISTANCE_FEATURE]), score, np.float32(np.nan))
    return Reliability(score, np.asarray(score < POOR_BELOW), concerns)


def compute_risk_term(
    reference: TrainingReference, name: str, values: NDArray[np.floating]
) -> Float32Array:
    """A part of the risk, of any shape: 0 at a usual training spot, higher where it is worse."""
    levels = np.log(np.maximum(reference.feature_quantiles[_reference_row(reference, name)], 1e-6))
    deviation = max(float(levels[84] - levels[16]) / 2, 1e-3)
    logarithm = np.log(np.maximum(values, 1e-6))
    return np.asarray((logarithm - levels[50]) / deviation, np.float32)


def compute_artifact_excess(
    reference: TrainingReference, artifact: TileArtifact, values: NDArray[np.floating]
) -> Float32Array:
    """How far beyond every training spot: 0 within, 1 where a tile is ruined."""
    levels = reference.feature_quantiles[_reference_row(reference, artifact.name)]
    usual = float(levels[-1] if artifact.is_excess else levels[0])
    if artifact.always_normal is not None:
        usual = (
            max(usual, artifact.always_normal)
            if artifact.is_excess
            else min(usual, artifact.always_normal)
        )
    beyond = values - usual if artifact.is_excess else usual - values
    return np.asarray(np.clip(np.nan_to_num(beyond) / artifact.margin, 0, 1), np.float32)


def _risk_at_95th_percentile(reference: TrainingReference, name: str) -> float:
    """The risk that one in twenty training spots has."""
    levels = reference.feature_quantiles[_reference_row(reference, name)]
    return max(float(compute_risk_term(reference, name, levels[95:96])[0]), 1e-3)


def _is_informative(reference: TrainingReference, name: str) -> bool:
    """False for what the training spots do not vary in: a single network has no members."""
    return name in reference.feature_names and bool(
        np.ptp(reference.feature_quantiles[_reference_row(reference, name)]) > 0
    )


def _reference_row(reference: TrainingReference, name: str) -> int:
    return reference.feature_names.index(name)
