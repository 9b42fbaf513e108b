"""Recalibration of mean and std, and the reliability score, against plain formulas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_dkan.inference.tile_qc_features import QC_FEATURE_NAMES
from napari_dkan.model.checkpoint.training_reference import DISTANCE_FEATURE, TrainingReference
from napari_dkan.quality.reliability import (
    TILE_ARTIFACTS,
    Reliability,
    compute_artifact_excess,
    compute_risk_term,
    reliability_level,
    score_reliability,
)
from napari_dkan.training.finetuning.closed_form import FitOptions, apply_levels, fit_levels
from napari_dkan.training.finetuning.tuned_model import initialize_mean_std

# --- mean and std of the labels ---------------------------------------------------------


def levels(mean: list[float], std: list[float]) -> Any:
    """A network as far as its level and spread go."""
    return SimpleNamespace(
        label_mean=torch.tensor(mean), label_std=torch.tensor(std), device=torch.device("cpu")
    )


def recalibrate(network: Any, predicted: Any, measured: Any) -> None:
    """Level with thirty spots of the old one, and spread."""
    p, y = (np.concatenate(v).astype(np.float64) for v in (predicted, measured))
    apply_levels(network, *fit_levels(p, y, FitOptions(level_prior=30.0, adapts_spread=True)))


def test_a_genes_level_moves_by_its_mean_error_shrunk_by_thirty_spots() -> None:
    network = levels([1.0, 2.0], [0.5, 0.25])
    predicted = np.array([[1.0, 5.0], [3.0, 7.0]], np.float32)
    # the second section adds two spots; measured is predicted plus 0.7 and minus 0.35
    sections = [predicted, predicted + np.float32([[2.0, 2.0]])]
    recalibrate(network, sections, [s + np.float32([[0.7, -0.35]]) for s in sections])
    np.testing.assert_allclose(network.label_mean, [1 + 4 * 0.7 / 34, 2 - 4 * 0.35 / 34], rtol=1e-5)
    np.testing.assert_allclose(network.label_std, [0.5, 0.25], rtol=1e-5)


def plain(mean, std, p, y) -> tuple[np.ndarray, np.ndarray]:
    """The same gene by gene, over the spots where it is measured."""
    above = below = 0.0
    for g in range(p.shape[1]):
        known = [i for i in range(len(p)) if not np.isnan(y[i, g])]
        if known:
            a = p[known, g] - p[known, g].mean()
            above += float(a @ (y[known, g] - y[known, g].mean()))
            below += float(a @ a)
    slope = min(max(above / below, 0.3), 3.0)
    new_mean, new_std = mean.copy(), std.copy()
    for g in range(p.shape[1]):
        known = [i for i in range(len(p)) if not np.isnan(y[i, g])]
        if known:
            # the map p -> middle + slope (p - middle) + moved, of mean and std themselves
            moved = (y[known, g] - p[known, g]).sum() / (len(known) + 30)
            middle = p[known, g].mean()
            new_mean[g] = middle + slope * (mean[g] - middle) + moved
            new_std[g] = slope * std[g]
    return new_mean, new_std


@pytest.mark.parametrize("size", [1, 0.01])
@pytest.mark.parametrize("slope", [0.6, 1.7, -1.0, 0.29, 3.5])
def test_the_spread_of_all_genes_changes_by_one_slope_within_limits(
    slope: float, size: float
) -> None:
    draw = np.random.default_rng(0)
    p = size * draw.normal(size=(25, 4)) * [1, 2, 3, 4] + [5, 1, 0, -2]
    y = slope * p + 0.1 * size * draw.normal(size=p.shape) + [0, 1, 2, 3]
    y[3:9, 1], y[:, 2], y[1:, 3] = np.nan, np.nan, np.nan  # the last one at one spot
    mean, std = np.array([0.5, 1.0, 1.5, 2.0]), np.array([1.0, 0.5, 0.75, 2.0])
    network = levels(mean.tolist(), std.tolist())
    parts = [slice(0, 10), slice(10, 25)]
    recalibrate(
        network, [p[s].astype(np.float32) for s in parts], [y[s].astype(np.float32) for s in parts]
    )
    wanted_mean, wanted_std = plain(mean, std, p, y)
    np.testing.assert_allclose(network.label_mean, wanted_mean, rtol=1e-4)
    np.testing.assert_allclose(network.label_std, wanted_std, rtol=1e-4)
    assert network.label_mean[2] == 1.5 and network.label_std[2] == 0.75  # measured nowhere
    limited = {-1.0: 0.3, 0.29: 0.3, 3.5: 3.0}
    if slope in limited:
        assert network.label_std[0] == pytest.approx(limited[slope])


def test_constant_predictions_get_the_smallest_spread() -> None:
    network = levels([1.0], [1.0])
    recalibrate(network, [np.ones((3, 1))], [np.array([[1.0], [2.0], [3.0]])])
    assert network.label_std[0] == pytest.approx(0.3)
    assert network.label_mean[0] == pytest.approx(1 + 3 / 33)


def test_new_genes_get_the_level_and_spread_of_their_labels() -> None:
    network = levels([0.0, 10.0, 20.0], [1.0, 2.0, 4.0])
    predicted = [np.array([[9.0, 12.0, 16.0]]), np.array([[9.0, 8.0, 24.0], [9.0, 13.0, 32.0]])]
    measured = [np.array([[9.0, 1.0, 5.0]]), np.array([[9.0, 2.0, 5.0], [9.0, 6.0, 5.0]])]
    initialize_mean_std(network, slice(1, 3), predicted, measured)
    # standardised predictions: (1, -1, 1.5) and (-1, 1, 3); labels: mean 3 and 5
    spread = float(np.std([1.0, 2.0, 6.0]))
    assert network.label_std.tolist() == pytest.approx([1.0, spread, 0.02])
    assert network.label_mean.tolist() == pytest.approx([0.0, 3 - spread * 0.5, 5 - 0.02 * 1.0])


# --- reliability ------------------------------------------------------------------------

RAMP = (np.arange(101) - 50) / 50  # from -1 to 1; its 16th to 84th part spans 1.36


def reference(**quantiles: np.ndarray) -> TrainingReference:
    """Distances are absolute values of one number; what is not given does not vary."""
    names = (*QC_FEATURE_NAMES, DISTANCE_FEATURE)
    given = {"tissue": np.full(101, 1.0), "sharpness": np.full(101, 0.6), **quantiles}
    rows = [given.get(n, np.full(101, 0.25)) for n in names]
    return TrainingReference(
        50,
        names,
        np.array(rows, np.float32),
        ("S1",),
        np.zeros((1, len(names)), np.float32),
        (0.5,),
        np.zeros(1, np.float32),
        np.ones((1, 1), np.float32),
    )


def features(n: int, **columns) -> np.ndarray:
    """What is noted of N tiles that are like the training."""
    usual = {"tissue": 1.0, "sharpness": 0.6}
    values = {name: np.full(n, usual.get(name, 0.25)) for name in QC_FEATURE_NAMES}
    values |= {name: np.asarray(column, float) for name, column in columns.items()}
    return np.stack(list(values.values()), axis=1)


def tokens(*distances: float) -> np.ndarray:
    return np.array(distances)[:, None]


DECILES = (-1.99, -1.1, -0.84, -0.56, -0.35, -0.14, 0.07, 0.38, 0.79, 1.2, 2.58)


def test_a_risk_is_the_distance_from_the_median_in_deviations() -> None:
    made = reference(distance=np.exp(RAMP * 2))
    found = compute_risk_term(made, "distance", np.array([1.0, np.e, np.exp(-2.0), 0.0]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, [0, 1 / 1.36, -2 / 1.36, np.log(1e-6) / 1.36], rtol=1e-5, atol=1e-6
    )
    table = compute_risk_term(made, "distance", np.full((2, 3), np.e))
    assert table.shape == (2, 3)
    flat = compute_risk_term(reference(), "members", np.array([0.25 * np.e]))
    assert float(flat[0]) == pytest.approx(1000, rel=1e-5)  # the deviation is at least 0.001


def test_the_score_is_the_share_of_held_out_spots_that_are_riskier() -> None:
    made = reference(distance=np.exp(RAMP))
    risks = np.array([-3.0, -0.84, -0.14, 0.0, 2.0, 9.0])
    found = score_reliability(made, features(6), tokens(*np.exp(risks * 0.68)))
    assert found.score.dtype == np.float32 and found.unreliable.dtype == np.bool_
    wanted = [1, 0.8, 0.5, 0.5 - 0.1 * 14 / 21, 0.1 * (1 - 0.8 / 1.38), 0]
    np.testing.assert_allclose(found.score, wanted, atol=1e-4)
    assert found.unreliable.tolist() == [False] * 4 + [True, True]
    # the concern is one at the risk of one training spot in twenty
    np.testing.assert_allclose(found.concerns["distance"], risks * 0.68 / 0.9, rtol=1e-4)
    assert set(found.concerns) == {"distance", "tissue", "sharpness", "pen", "dark"}


def test_the_risk_is_the_mean_of_distance_and_disagreement() -> None:
    made = reference(distance=np.exp(RAMP), members=np.exp(RAMP * 2))
    given = features(3, members=np.exp(np.array([0.5, -1.0, 2.0]) * 1.36))
    found = score_reliability(made, given, tokens(*np.exp(np.array([-0.36, 1.0, 3.16]) * 0.68)))
    np.testing.assert_allclose(found.score, [0.4, 0.5 - 0.1 * 14 / 21, 0], atol=1e-4)
    np.testing.assert_allclose(
        found.concerns["members"], np.array([0.5, -1.0, 2.0]) * 1.36 / 1.8, rtol=1e-4
    )


def test_a_concern_is_one_where_one_training_spot_in_twenty_is_as_far() -> None:
    # a quarter of the training spots lie at the largest distance, 0.6 on the logarithm
    made = reference(distance=np.exp(np.minimum(RAMP, 0.6)) * 0.5)
    values = np.array([1.0, np.exp(0.6), np.exp(1.2), np.exp(-0.3)]) * 0.5
    found = score_reliability(made, features(4), tokens(*values))
    np.testing.assert_allclose(found.concerns["distance"], [0, 1, 2, -0.5], atol=1e-4)
    risks = np.array([0, 0.6, 1.2, -0.3]) / 0.64
    wanted = 1 - np.interp(risks, DECILES, np.arange(11) / 10)
    np.testing.assert_allclose(found.score, wanted, atol=1e-4)


def test_an_artifact_lowers_the_score_by_how_far_it_exceeds_the_training() -> None:
    made = reference(
        distance=np.exp(RAMP),
        tissue=np.linspace(0.7, 1, 101),
        sharpness=np.linspace(0.5, 0.9, 101),
        pen=np.linspace(0, 0.1, 101),
        dark=np.linspace(0, 0.2, 101),
    )
    given = features(
        6,
        tissue=[1, 0.4, 1, 1, 1, 1],
        sharpness=[0.9, 0.9, 0.4, 0.9, 0.9, 0.2],
        pen=[0, 0, 0, 0.15, 0, 0.125],
        dark=[0, 0, 0, 0, 0.25, 0],
    )
    found = score_reliability(made, given, tokens(*[np.exp(-0.14 * 0.68)] * 6))
    np.testing.assert_allclose(found.score, [0.5, 0.3, 0.25, 0.25, 0.4, 0], atol=1e-4)
    for name, excess in (
        ("tissue", [0, 0.4, 0, 0, 0, 0]),
        ("sharpness", [0, 0, 0.5, 0, 0, 1]),
        ("pen", [0, 0, 0, 0.5, 0, 0.25]),
        ("dark", [0, 0, 0, 0, 0.2, 0]),
    ):
        np.testing.assert_allclose(found.concerns[name], np.array(excess) * 2, atol=1e-5)


def test_the_margins_of_each_artifact() -> None:
    by_name = {artifact.name: artifact for artifact in TILE_ARTIFACTS}

    def excess(name: str, quantiles, *values: float) -> list[float]:
        made = reference(**{name: np.asarray(quantiles, float)})
        found = compute_artifact_excess(made, by_name[name], np.array(values))
        assert found.dtype == np.float32
        return found.round(6).tolist()

    ramp = np.linspace(0.2, 0.8, 101)
    # half of a tile without tissue is usual, whatever the training; less where that had less
    assert excess("tissue", ramp, 0.2, 0.15, 0.0, np.nan) == pytest.approx([0, 0.2, 0.8, 0])
    assert excess("tissue", ramp + 0.4, 0.5, 0.375, 0.25, 0.1) == pytest.approx([0, 0.5, 1, 1])
    assert excess("sharpness", ramp, 0.3, 0.2, 0.1, 0.0) == pytest.approx([0, 0, 0.5, 1])
    assert excess("pen", ramp, 0.7, 0.8, 0.85, 0.95) == pytest.approx([0, 0, 0.5, 1])
    assert excess("dark", ramp, 0.7, 0.8, 0.925, 1.3) == pytest.approx([0, 0, 0.5, 1])


def test_tiles_that_are_not_predicted_have_no_score() -> None:
    made = reference(distance=np.exp(RAMP))
    found = score_reliability(made, features(2), tokens(np.nan, 1.0))
    assert np.isnan(found.score[0]) and found.score[1] == pytest.approx(0.433, abs=1e-3)
    assert found.unreliable.tolist() == [False, False]
    bare = score_reliability(None, features(3), tokens(1, 2, 3))
    assert np.isnan(bare.score).all() and len(bare.score) == 3 and bare.score.dtype == np.float32
    assert bare.unreliable.tolist() == [False] * 3 and bare.concerns == {}
    empty = score_reliability(made, features(0), np.zeros((0, 1)))
    assert empty.score.shape == empty.unreliable.shape == (0,) and empty.concerns == {}


def test_an_older_reference_without_pixel_statistics() -> None:
    made = reference(distance=np.exp(RAMP))
    old = TrainingReference(
        50,
        ("distance",),
        made.feature_quantiles[-1:],
        ("S1",),
        np.zeros((1, 1), np.float32),
        (0.5,),
        made.token_mean,
        made.token_axes,
    )
    found = score_reliability(old, features(1, pen=[0.9]), tokens(np.exp(-0.14 * 0.68)))
    assert found.score.tolist() == pytest.approx([0.5], abs=1e-4)
    assert set(found.concerns) == {"distance"}


def test_levels_of_a_score() -> None:
    scores = (0.0, 0.09, 0.1, 0.49, 0.5, 1.0)
    assert [reliability_level(s) for s in scores] == [
        "poor",
        "poor",
        "fair",
        "fair",
        "good",
        "good",
    ]
    assert reliability_level(float("nan")) == ""
    made = Reliability(np.float32([0.05, 0.7]), np.array([True, False]), {})
    assert (made.level(0), made.level(1)) == ("poor", "good")


def test_reasons_are_those_from_one_on_worst_first() -> None:
    score = np.float32([0.4, 0.4, 0.5, np.nan, 0.3])
    concerns = {
        "distance": np.float32([1.0, 0.5, 9, 9, 0.2]),
        "pen": np.float32([2.0, 0.6, 9, 9, 0.1]),
        "dark": np.float32([0.9, 0.1, 9, 9, 0.3]),
    }
    made = Reliability(score, np.zeros(5, bool), concerns)
    pen = "a colour that is no stain: pen, or something on the glass"
    assert made.reasons(0) == (pen, "unlike the tissue of the training slides")
    assert made.reasons(1) == (pen,)
    assert made.reasons(2) == made.reasons(3) == ()
    assert made.reasons(4) == ("nearly black: ink, a fold or a pigment",)
    assert Reliability(score, np.zeros(5, bool), {}).reasons(0) == ()
