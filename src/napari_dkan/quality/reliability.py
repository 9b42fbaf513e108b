"""Score the reliability of the prediction of each tile, without measurements.

The score was calibrated on held-out sections, where spots of low scores have larger errors, beside
depth too. Much of that is counting noise of the measured values (docs/trust.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.tile_qc_features import QC_FEATURE_NAMES
from ..model.checkpoint.training_reference import DISTANCE_FEATURE, TrainingReference

# The risk is the mean of these terms: each is the distance of the logarithm from the median of the
# training spots, in their standard deviations. Chosen by benchmarks/reliability.py, which judges by
# the error of the depth residuals.
RISK_TERMS = (DISTANCE_FEATURE, "members")
# Deciles of the risk over the spots of C2 to C5, each held out.
HELD_OUT_RISK_DECILES = (-1.99, -1.1, -0.84, -0.56, -0.35, -0.14, 0.07, 0.38, 0.79, 1.2, 2.58)
DECILES = np.linspace(0, 1, len(HELD_OUT_RISK_DECILES))
POOR_BELOW, FAIR_BELOW = 0.1, 0.5  # scores; a poor tile is unreliable

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class TileArtifact:
    """An artifact of the image: a feature is higher or lower than in all training spots.

    Attributes
    ----------
    name : str
        The feature, one of `QC_FEATURE_NAMES`.
    is_excess : bool
        Whether high values are the artifact; else low ones are.
    margin : float
        Excess at which the score becomes 0.
    description : str
        Reason that the user reads.
    always_normal : float or None
        Value up to which a tile is normal whatever the training spots had.
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
} | {artifact.name: artifact.description for artifact in TILE_ARTIFACTS}


@dataclass(frozen=True, eq=False)
class Reliability:
    """Reliability of N tiles.

    Attributes
    ----------
    score : (N,) array
        0 to 1, higher is more reliable; NaN where nothing is predicted or the checkpoint has no
        reference.
    unreliable : (N,) bool array
        Whether the score is below 0.1.
    concerns : mapping
        By name, the strength (N,) of a reason against a tile; from 1 on it is reported.
    """

    score: Float32Array
    unreliable: NDArray[np.bool_]
    concerns: Mapping[str, Float32Array]

    def reasons(self, row: int) -> tuple[str, ...]:
        """Return the reasons for a low score of a tile, worst first; () for a good score."""
        if not self.score[row] < FAIR_BELOW:
            return ()
        strength = {name: float(values[row]) for name, values in self.concerns.items()}
        by_strength = sorted(strength, key=lambda name: -strength[name])
        reported = [name for name in by_strength if strength[name] >= 1] or by_strength[:1]
        return tuple(REASON_TEXTS[name] for name in reported)

    def level(self, row: int) -> str:
        """Return good, fair or poor; "" where there is no score."""
        return reliability_level(float(self.score[row]))


def reliability_level(score: float) -> str:
    """Return good, fair or poor; "" for NaN."""
    if np.isnan(score):
        return ""
    return "poor" if score < POOR_BELOW else "fair" if score < FAIR_BELOW else "good"


def score_reliability(
    reference: TrainingReference | None,
    qc_features: NDArray[np.floating],
    tokens: NDArray[np.floating],
) -> Reliability:
    """Score N tiles.

    A score is the share of held-out spots of the training tissue that had a higher risk;
    artifacts of the image lower it.

    Parameters
    ----------
    reference : TrainingReference or None
        Of the checkpoint; without it all scores are NaN.
    qc_features : (N, E) array
        Features of the tiles, in the order of `QC_FEATURE_NAMES`.
    tokens : (N, D) array
        Fused tokens; rows of NaN were not predicted.
    """
    count = len(qc_features)
    if reference is None or not count:
        return Reliability(np.full(count, np.nan, np.float32), np.zeros(count, bool), {})
    features = {
        name: np.asarray(qc_features[:, i], np.float32) for i, name in enumerate(QC_FEATURE_NAMES)
    }
    features[DISTANCE_FEATURE] = reference.compute_distance(tokens)
    risks = {
        name: compute_risk_term(reference, name, features[name])
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
    for artifact in TILE_ARTIFACTS:
        if artifact.name in reference.feature_names:
            excess = compute_artifact_excess(reference, artifact, features[artifact.name])
            concerns[artifact.name] = 2 * excess  # half of the margin is reported
            score = score * (1 - excess)
    score = np.where(np.isfinite(features[DISTANCE_FEATURE]), score, np.float32(np.nan))
    return Reliability(score, np.asarray(score < POOR_BELOW), concerns)


def compute_risk_term(
    reference: TrainingReference, name: str, values: NDArray[np.floating]
) -> Float32Array:
    """Return a term of the risk, of any shape: 0 at the median training spot, higher if worse."""
    levels = np.log(np.maximum(reference.feature_quantiles[_reference_row(reference, name)], 1e-6))
    deviation = max(float(levels[84] - levels[16]) / 2, 1e-3)
    logarithm = np.log(np.maximum(values, 1e-6))
    return np.asarray((logarithm - levels[50]) / deviation, np.float32)


def compute_artifact_excess(
    reference: TrainingReference, artifact: TileArtifact, values: NDArray[np.floating]
) -> Float32Array:
    """Return the excess over all training spots: 0 within their range, 1 from the margin on."""
    levels = reference.feature_quantiles[_reference_row(reference, artifact.name)]
    limit = float(levels[-1] if artifact.is_excess else levels[0])
    if artifact.always_normal is not None:
        outer = max if artifact.is_excess else min
        limit = outer(limit, artifact.always_normal)
    excess = values - limit if artifact.is_excess else limit - values
    return np.asarray(np.clip(np.nan_to_num(excess) / artifact.margin, 0, 1), np.float32)


def _risk_at_95th_percentile(reference: TrainingReference, name: str) -> float:
    """The risk that one in twenty training spots exceeds."""
    levels = reference.feature_quantiles[_reference_row(reference, name)]
    return max(float(compute_risk_term(reference, name, levels[95:96])[0]), 1e-3)


def _is_informative(reference: TrainingReference, name: str) -> bool:
    """False where all training spots are equal, as `members` of a single network."""
    return name in reference.feature_names and bool(
        np.ptp(reference.feature_quantiles[_reference_row(reference, name)]) > 0
    )


def _reference_row(reference: TrainingReference, name: str) -> int:
    return reference.feature_names.index(name)
