"""How far to trust the prediction of each tile, without measurements.

The score was made against measurements: on held-out sections the spots that score low have the
larger errors, by how much is in docs/trust.md. What did not help there is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.evidence import NAMES
from ..model.reference import DISTANCE, Reference

# What the risk is the mean of: each as the logarithm's distance from the median of the training
# spots, in their standard deviations. Chosen on held-out sections, see benchmarks/reliability.py.
RISK = (DISTANCE, "members")
# Tenths of the risk over the spots of C2 to C5, each held out; a score says where between them.
HELD_OUT = (-1.56, -0.96, -0.63, -0.34, -0.09, 0.16, 0.44, 0.79, 1.27, 1.74, 3.11)
TENTHS = np.linspace(0, 1, len(HELD_OUT))
POOR, FAIR = 0.1, 0.5  # scores below which a tile is unreliable, and only fair

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Sign:
    """Something wrong with a tile's pixels: more (or less) of it than any training spot had.

    margin : by how much more a tile is ruined. from_ : so much is usual whatever the training.
    """

    name: str
    more: bool
    margin: float
    words: str
    from_: float | None = None


SIGNS = (
    Sign("tissue", False, 0.25, "little tissue", from_=0.5),
    Sign("sharpness", False, 0.2, "out of focus"),
    Sign("pen", True, 0.1, "a colour that is no stain: pen, or something on the glass"),
    Sign("dark", True, 0.25, "nearly black: ink, a fold or a pigment"),
)
WORDS = {
    DISTANCE: "unlike the tissue of the training slides",
    "members": "the networks of the ensemble disagree",
} | {sign.name: sign.words for sign in SIGNS}


@dataclass(frozen=True, eq=False)
class Reliability:
    """score : (N,) 0..1, higher is more to be trusted; NaN where nothing is predicted or the
    checkpoint has no reference. unreliable : (N,) those of score below 0.1.
    concerns : by name (N,) how much each thing speaks against a tile; from 1 on it is told.
    """

    score: Numbers
    unreliable: NDArray[np.bool_]
    concerns: Mapping[str, Numbers]

    def reasons(self, row: int) -> tuple[str, ...]:
        """What speaks against a tile in plain words, worst first; () when all is well."""
        if not self.score[row] < FAIR:
            return ()
        found = {name: float(values[row]) for name, values in self.concerns.items()}
        worst = sorted(found, key=lambda name: -found[name])
        told = [name for name in worst if found[name] >= 1] or worst[:1]
        return tuple(WORDS[name] for name in told)

    def word(self, row: int) -> str:
        """good, fair or poor; "" where there is no score."""
        return word_of(float(self.score[row]))


def word_of(score: float) -> str:
    """good, fair or poor; "" for NaN."""
    if np.isnan(score):
        return ""
    return "poor" if score < POOR else "fair" if score < FAIR else "good"


def judge(
    reference: Reference | None,
    evidence: NDArray[np.floating],
    tokens: NDArray[np.floating],
) -> Reliability:
    """Of N tiles by what was noted of them (N, E) and their fused tokens (N, D).

    A score is the share of held-out spots of the training tissue that were riskier; signs of
    something wrong with the pixels lower it. NaN rows were not predicted.
    """
    count = len(evidence)
    if reference is None or not count:
        return Reliability(np.full(count, np.nan, np.float32), np.zeros(count, bool), {})
    noted = {name: np.asarray(evidence[:, i], np.float32) for i, name in enumerate(NAMES)}
    noted[DISTANCE] = reference.distance(tokens)
    risks = {name: risk_of(reference, name, noted[name]) for name in RISK if _told(reference, name)}
    concerns = {name: risk / _unusual(reference, name) for name, risk in risks.items()}
    total = np.mean(list(risks.values()), axis=0)
    score: Numbers = np.asarray(1 - np.interp(total, HELD_OUT, TENTHS), np.float32)
    for sign in SIGNS:
        if sign.name in reference.names:
            excess = excess_of(reference, sign, noted[sign.name])
            concerns[sign.name] = 2 * excess  # half way to ruined is told
            score = score * (1 - excess)
    score = np.where(np.isfinite(noted[DISTANCE]), score, np.float32(np.nan))
    return Reliability(score, np.asarray(score < POOR), concerns)


def risk_of(reference: Reference, name: str, values: NDArray[np.floating]) -> Numbers:
    """A part of the risk, of any shape: 0 at a usual training spot, higher where it is worse."""
    levels = np.log(np.maximum(reference.levels[_row(reference, name)], 1e-6))
    deviation = max(float(levels[84] - levels[16]) / 2, 1e-3)
    logarithm = np.log(np.maximum(values, 1e-6))
    return np.asarray((logarithm - levels[50]) / deviation, np.float32)


def excess_of(reference: Reference, sign: Sign, values: NDArray[np.floating]) -> Numbers:
    """How far beyond every training spot: 0 within, 1 where a tile is ruined."""
    levels = reference.levels[_row(reference, sign.name)]
    usual = float(levels[-1] if sign.more else levels[0])
    if sign.from_ is not None:
        usual = max(usual, sign.from_) if sign.more else min(usual, sign.from_)
    beyond = values - usual if sign.more else usual - values
    return np.asarray(np.clip(np.nan_to_num(beyond) / sign.margin, 0, 1), np.float32)


def _unusual(reference: Reference, name: str) -> float:
    """The risk that one in twenty training spots has."""
    levels = reference.levels[_row(reference, name)]
    return max(float(risk_of(reference, name, levels[95:96])[0]), 1e-3)


def _told(reference: Reference, name: str) -> bool:
    """False for what the training spots do not vary in: a single network has no members."""
    return name in reference.names and bool(np.ptp(reference.levels[_row(reference, name)]) > 0)


def _row(reference: Reference, name: str) -> int:
    return reference.names.index(name)
