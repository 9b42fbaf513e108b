"""Candidates of a fine-tuning: planted cases, the rule, and what the engine makes of the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.inference.predictor import Predictor
from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.network.ensemble import combine_members, list_members
from napari_dkan.model.network.linear_path import LinearFit, LinearPath
from napari_dkan.slide import open_slide
from napari_dkan.slide.pixel_size import PixelSize
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.evaluation.evaluate_checkpoint import predict_measured_spots
from napari_dkan.training.finetuning.candidates import (
    Candidate,
    CandidateChoice,
    FoldScores,
    choose_candidate,
    is_better,
    pick_best,
)
from napari_dkan.training.finetuning.closed_form import (
    ClosedFormFitter,
    FitOptions,
    SpotInputs,
    carry_fit,
    fit_levels,
)
from napari_dkan.training.finetuning.finetune_checkpoint import FinetuneResult, finetune_checkpoint
from napari_dkan.training.finetuning.finetune_settings import AdaptScope, FinetuneSettings
from napari_dkan.training.finetuning.hold_out_split import Subset
from napari_dkan.training.finetuning.training_section import TrainingSectionReader
from napari_dkan.training.finetuning.tuned_model import compute_spot_tokens
from napari_dkan.training.finetuning.tuning_loop import pick_epoch_by_other_folds
from napari_dkan.training.finetuning.tuning_protocol import EpochFinished, FinetuneStarted

SIDE, TOTAL = 10, 40_000
PLAIN = FinetuneSettings(AdaptScope.plain, share=0.3)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(tiny_checkpoint_file: Path) -> Checkpoint:
    """Labels of single spots; the last gene takes what the others leave, nearly all counts."""
    model = load_checkpoint(tiny_checkpoint_file)
    network = list_members(model.network)[0]
    network.label_mean.copy_(torch.tensor([1.4, 1.5, 1.6, 1.7, 1.8, 4.0]))
    network.label_std.copy_(torch.tensor([0.6, 0.6, 0.6, 0.6, 0.6, 1e-9]))
    return replace(model, label_scale=LabelScale(smoothing=1))


def blank_section(slide: Path, model: Checkpoint) -> anndata.AnnData:
    at = np.arange(SIDE * SIDE)
    column, row = at % SIDE, at // SIDE
    data = anndata.AnnData(
        np.ones((len(at), len(model.panel)), np.float32),
        obs=pd.DataFrame({"array_col": column, "array_row": row}, index=[f"s{i}" for i in at]),
        var=pd.DataFrame(index=list(model.panel.symbols)),
    )
    data.obsm["spatial"] = np.stack([130 + 150.0 * column, 130 + 150.0 * row], axis=1)
    data.uns = {"section": "drawn", "mpp": 0.7, "spot_pitch_um": 105.0, "spot_diameter_um": 80.0}
    data.uns["image"] = str(slide)
    return data


def with_labels(data: anndata.AnnData, labels: np.ndarray) -> anndata.AnnData:
    """Counts whose labels are these (N, 5), up to whole counts; a sixth gene takes the rest."""
    share = (10.0 ** np.clip(labels, 0, 3.2) - 1) / 1e4
    # totals that follow nothing, so that depth explains nothing
    totals = TOTAL * np.random.default_rng(1).uniform(0.8, 1.2, len(labels))
    counts = np.rint(share * totals[:, None])
    data = data.copy()
    data.X = np.c_[counts, np.rint(totals - counts.sum(axis=1))].astype(np.float32)
    return data


def predictions_and_features(
    data: anndata.AnnData, model: Checkpoint
) -> tuple[np.ndarray, np.ndarray]:
    section = TrainingSectionReader(model).read(data, model.panel)
    (tokens,) = compute_spot_tokens(model.network, [section])
    inputs = SpotInputs.of_section(model.network, section, tokens)
    return inputs.prior[:, :5], inputs.x


def candidate(name: str, partial: list[float], mse: list[float]) -> Candidate:
    return Candidate(name, FoldScores(np.array(partial), np.array(mse)))


# --- planted cases ------------------------------------------------------------------------


def test_where_nothing_helps_the_checkpoint_stays_to_the_bit(
    tiny_slide_file: Path, model: Checkpoint, tmp_path: Path
) -> None:
    data = blank_section(tiny_slide_file, model)
    prior, _ = predictions_and_features(data, model)
    taken = (10**prior - 1).sum(axis=1).mean() / 1e4
    list_members(model.network)[0].label_mean[5] = np.log10(1 + 1e4 * (1 - taken))
    tuned = finetune_checkpoint(model, [with_labels(data, prior)], PLAIN)
    assert tuned.report["kept"] == "unchanged" and not tuned.is_better
    assert "nothing was clearly better" in tuned.verdict
    save_checkpoint(tmp_path / "kept.safetensors", tuned.checkpoint)
    kept = load_checkpoint(tmp_path / "kept.safetensors").network.state_dict()
    before = model.network.state_dict()
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], before[name]) for name in before)


@pytest.mark.parametrize("shift", [-0.5, 0.35])
def test_a_shift_of_level_is_adapted_at_once(
    tiny_slide_file: Path, model: Checkpoint, shift: float
) -> None:
    data = blank_section(tiny_slide_file, model)
    prior, _ = predictions_and_features(data, model)
    tuned = finetune_checkpoint(model, [with_labels(data, prior + shift)], PLAIN)
    summary = tuned.report["summary"]
    assert tuned.report["kept"] == "levels"
    assert tuned.checkpoint.network.config.linear == 0
    assert summary["after"]["mse"] < 0.3 * summary["before"]["mse"]
    moved = tuned.checkpoint.network.label_mean - model.network.label_mean
    np.testing.assert_allclose(moved[:5], shift, atol=0.05)
    assert "better in level only" in tuned.verdict and "level and spread" in tuned.verdict


@pytest.fixture
def ridge_run(tiny_slide_file: Path, model: Checkpoint) -> tuple[FinetuneResult, anndata.AnnData]:
    """Labels that are linear in the tile features, and a checkpoint that knows nothing."""
    list_members(model.network)[0].label_std[:5] = 8.0
    data = blank_section(tiny_slide_file, model)
    _, x = predictions_and_features(data, model)
    axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[0][:, :2]
    rule = np.random.default_rng(3).normal(0, 2.5, (2, 5))
    data = with_labels(data, 1.6 + axes @ rule)
    return finetune_checkpoint(model, [data], PLAIN), data


def test_where_ridge_wins_ridge_is_kept(ridge_run) -> None:
    tuned, _ = ridge_run
    summary = tuned.report["summary"]
    assert tuned.report["kept"] == "ridge"
    assert tuned.is_better and tuned.checkpoint.network.config.linear > 0
    assert summary["after"]["depth_partial_pcc"] > 0.8 > summary["before"]["depth_partial_pcc"]
    assert summary["after"]["mse"] < summary["before"]["mse"] / 5
    assert "a plain ridge regression" in tuned.verdict


def test_the_engine_predicts_what_was_reported(
    ridge_run, tiny_slide_file: Path, tmp_path: Path
) -> None:
    tuned, data = ridge_run
    save_checkpoint(tmp_path / "tuned.safetensors", tuned.checkpoint)
    reopened = load_checkpoint(tmp_path / "tuned.safetensors")
    section = TrainingSectionReader(reopened).read(data, reopened.panel)
    (tokens,) = compute_spot_tokens(tuned.checkpoint.network, [section])
    with torch.no_grad():
        expected = tuned.checkpoint.network.decode(tokens.fused.z).numpy()
    with open_slide(tiny_slide_file) as slide:
        measured = make_measured_section(data, reopened)
        size = PixelSize(0.7, "given")
        predictor = Predictor(slide, reopened, size.mpp, find_tissue_region(slide, size.mpp))
        prediction = predict_measured_spots(predictor, measured, size)
    np.testing.assert_allclose(prediction.values, expected, atol=2e-3)
    assert prediction.tokens.shape[1] == reopened.network.config.token_dim
    assert expected[:, :5].std(axis=0).min() > 0.05


def test_training_starts_from_the_levels_and_its_result_is_a_candidate(
    tiny_slide_file: Path, model: Checkpoint
) -> None:
    data = blank_section(tiny_slide_file, model)
    prior, _ = predictions_and_features(data, model)
    told: list = []
    settings = FinetuneSettings(AdaptScope.heads, epochs=2, share=0.3)
    tuned = finetune_checkpoint(model, [with_labels(data, prior - 0.8)], settings, told.append)
    (started,) = (e for e in told if isinstance(e, FinetuneStarted))
    assert "level and spread" in started.plain  # before the first epoch
    assert told.index(started) < next(i for i, e in enumerate(told) if isinstance(e, EpochFinished))
    names = [c["name"] for c in tuned.report["candidates"]]
    assert names[:4] == ["unchanged", "levels", "correction", "ridge"]
    assert tuned.report["summary"]["after"]["mse"] < 0.3 * tuned.report["summary"]["before"]["mse"]


def test_a_checkpoint_with_a_linear_path_is_tuned_again(ridge_run, tiny_slide_file: Path) -> None:
    first, data = ridge_run
    shifted = data.copy()
    shifted.X[:, :5] = np.rint(shifted.X[:, :5] / 3)
    shifted.X[:, 5] += data.X[:, :5].sum(axis=1) - shifted.X[:, :5].sum(axis=1)
    settings = FinetuneSettings(AdaptScope.auto, epochs=2, share=0.3)
    again = finetune_checkpoint(first.checkpoint, [shifted], settings)
    summary = again.report["summary"]
    assert again.report["epochs"] == 0  # closed-form fits only
    assert summary["after"]["mse"] < 0.3 * summary["before"]["mse"]
    assert summary["after"]["depth_partial_pcc"] > 0.8


@pytest.mark.parametrize("reads_tokens", [False, True])
def test_heads_and_decoder_are_trained_beside_a_linear_path(
    tiny_slide_file: Path, model: Checkpoint, monkeypatch: pytest.MonkeyPatch, reads_tokens: bool
) -> None:
    """The networks' part of the labels is turned round; what the path adds stays in them."""
    (member,), draw = list_members(model.network), np.random.default_rng(2)
    member.label_std[:] = 4.0
    fit = LinearFit(
        share=np.full(6, 0.8),
        token_weights=draw.normal(0, 0.02, (16, 6)) * reads_tokens,
        tile_weights=np.outer(draw.normal(0, 0.05, 48), [1, 1, -1, 1, 1, 0]),
        mean=np.zeros(48),
        offset=np.array([0.6, 0.3, 0.5, 0.1, 0.4, 0.0]),
    )
    network = combine_members([member, deepcopy(member)], LinearPath.from_fit(widen(fit)))
    parent = replace(model, network=network)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    data = blank_section(tiny_slide_file, model)
    section = TrainingSectionReader(parent).read(data, parent.panel)
    (tokens,) = compute_spot_tokens(network, [section])
    with torch.no_grad():
        of_members = combine_members(network.member_networks).decode(tokens.fused.z[:, :32])
        added = network.decode(tokens.fused.z) - 0.8 * of_members
        turned = 0.8 * (2 * of_members.mean(dim=0) - of_members) + added
    data = with_labels(data, turned.numpy()[:, :5])
    told: list = []
    monkeypatch.setattr(
        "napari_dkan.training.finetuning.finetune_checkpoint.choose_candidate",
        lambda candidates: CandidateChoice(candidates[-1], "it is the last"),
    )
    adapt = AdaptScope.everything if reads_tokens else AdaptScope.heads
    settings = FinetuneSettings(adapt, epochs=40, share=0.3, lr=0.01)
    tuned = finetune_checkpoint(parent, [data], settings, told.append)
    # where the path reads the tokens, what makes these is not trained
    assert tuned.report["kept"] == ("decoder" if reads_tokens else "heads")
    summary = tuned.report["summary"]
    _, levels, *_, trained = tuned.report["candidates"]
    assert trained["depth_partial_pcc"] > levels["depth_partial_pcc"] + 0.1
    assert trained["mse"] < 0.9 * levels["mse"]
    assert summary["after"]["depth_partial_pcc"] > summary["before"]["depth_partial_pcc"] + 0.1
    assert summary["after"]["mse"] < 0.25 * summary["before"]["mse"]
    after = tuned.checkpoint.network.state_dict()
    changed = {
        n.split(".")[2]
        for n in after
        if n.startswith("members.")
        if n in before
        if not torch.equal(after[n], before[n])
    }
    assert "head" in changed and not changed & {"target", "fusion", "global_encoder", "neighbor"}
    np.testing.assert_allclose(after["linear.share"], 0.8, rtol=0.7)  # but for the spread
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def widen(fit: LinearFit) -> LinearFit:
    """The same fit for two networks."""
    weights = np.concatenate([fit.token_weights, fit.token_weights])
    return replace(fit, token_weights=weights)


# --- the fits ------------------------------------------------------------------------------


def made_up_inputs(n: int, genes: int = 4) -> tuple[SpotInputs, np.ndarray]:
    draw = np.random.default_rng(0)
    z, x = draw.normal(size=(n, 6)), draw.normal(size=(n, 9)) + 1
    prior = draw.normal(size=(n, genes))
    rule = np.random.default_rng(1)
    labels = 0.7 * prior + z @ rule.normal(size=(6, genes)) + x @ rule.normal(size=(9, genes)) + 2
    return SpotInputs(prior, z, x), labels


def subset_of(labels: np.ndarray) -> Subset:
    return Subset((np.arange(len(labels)),), (labels,), (np.zeros(len(labels)),))


def test_a_small_penalty_recovers_a_linear_rule_beside_the_prior() -> None:
    inputs, labels = made_up_inputs(80)
    fitter = ClosedFormFitter([inputs], subset_of(labels - 0.3 * 0))
    options = FitOptions(level_prior=0.0, share=0.7, penalty=1e-9)
    fit = fitter.fit(options)
    rows = np.arange(80)
    # the share is of the prior with its level moved, which is a constant per gene
    np.testing.assert_allclose(inputs.predict(fit, rows), labels, atol=1e-4)


def test_without_regression_or_levels_a_fit_is_the_checkpoint() -> None:
    inputs, labels = made_up_inputs(30)
    fit = ClosedFormFitter([inputs], subset_of(labels)).fit(FitOptions())
    assert (fit.share == 1).all() and not fit.offset.any()
    np.testing.assert_array_equal(inputs.predict(fit, np.arange(30)), inputs.prior)


def test_genes_that_are_measured_nowhere_stay(model: Checkpoint) -> None:
    inputs, labels = made_up_inputs(40, genes=6)
    labels[:, 4] = np.nan
    labels[:25, 3] = np.nan
    fitter = ClosedFormFitter([inputs], subset_of(labels))
    for options in (FitOptions(0.0, True), FitOptions(0.0, share=0.0, penalty=3.0)):
        fit = fitter.fit(options)
        predicted = inputs.predict(fit, np.arange(40))
        np.testing.assert_array_equal(predicted[:, 4], inputs.prior[:, 4])
        assert np.isfinite(predicted).all() and not np.allclose(predicted[:, 3], inputs.prior[:, 3])


def test_wide_features_are_reduced_and_fit_what_their_axes_hold() -> None:
    draw = np.random.default_rng(2)
    hidden = draw.normal(size=(60, 3))
    x = hidden @ draw.normal(size=(3, 700))
    labels = hidden @ draw.normal(size=(3, 2))
    inputs = SpotInputs(np.zeros((60, 2)), np.zeros((60, 1)), x)
    fit = ClosedFormFitter([inputs], subset_of(labels)).fit(FitOptions(0.0, penalty=1e-9))
    assert fit.tile_weights.shape == (700, 2)
    np.testing.assert_allclose(inputs.predict(fit, np.arange(60)), labels, atol=1e-4)


def test_levels_are_carried_without_a_linear_path(model: Checkpoint) -> None:
    prior = np.random.default_rng(0).normal(2, 0.4, (20, 6))
    fitter = ClosedFormFitter(
        [SpotInputs(prior, np.zeros((20, 16)), np.zeros((20, 48)))], subset_of(1.5 * prior + 1)
    )
    options = FitOptions(10.0, True)
    slope, shift = fitter.fit_levels(options)
    network = carry_fit(model.network, fitter.fit(options), (slope, shift))
    assert network.config.linear == 0
    z = torch.randn(5, 16)
    with torch.no_grad():
        expected = model.network.decode(z).double().numpy() * slope + shift
        np.testing.assert_allclose(network.decode(z), expected, atol=1e-5)


def test_the_old_level_counts_as_so_many_spots() -> None:
    prior, labels = np.zeros((6, 1)), np.full((6, 1), 3.0)
    _, shift = fit_levels(prior, labels, FitOptions(level_prior=12.0))
    assert shift[0] == pytest.approx(1.0)
    assert fit_levels(prior, labels, FitOptions(level_prior=math.inf))[1][0] == 0


# --- the rule ------------------------------------------------------------------------------

FOUR = [0.2, 0.3, 0.25, 0.28]
START = candidate("unchanged", FOUR, [1.0, 1.2, 0.9, 1.1])


def moved(values: list[float], by: float) -> list[float]:
    return [v + by for v in values]


def test_depth_partial_pcc_comes_before_the_squared_error() -> None:
    better_beside_depth = candidate("decoder", moved(FOUR, 0.05), moved([1.0, 1.2, 0.9, 1.1], 0.5))
    smaller_error = candidate("levels", FOUR, [0.2, 0.2, 0.2, 0.2])
    kept = choose_candidate([START, smaller_error, better_beside_depth]).candidate
    assert kept is better_beside_depth


def test_a_smaller_error_is_no_reason_to_know_less_of_the_genes() -> None:
    depth_only = candidate("ridge", moved(FOUR, -0.1), [0.1, 0.1, 0.1, 0.1])
    assert not is_better(depth_only, START)
    assert choose_candidate([START, depth_only]).candidate is START


def test_a_gain_within_its_standard_error_is_none() -> None:
    lucky = candidate("decoder", [0.5, 0.26, 0.2, 0.24], [1.0, 1.2, 0.9, 1.1])
    assert not is_better(lucky, START)
    in_one_fold = candidate("levels", FOUR, [0.1, 1.3, 1.0, 1.2])
    assert not is_better(in_one_fold, START)


def test_a_loss_that_the_folds_do_not_exclude_is_not_bought_by_the_squared_error() -> None:
    """Folds of C3 thinned to 150, where the second candidate loses 0.02 on the held-out half."""
    before = candidate("unchanged", [0.151, 0.119, 0.129, 0.122], [0.64] * 4)
    strong = candidate("correction", [0.147, 0.117, 0.148, 0.122], [0.179] * 4)
    weak = candidate("correction", [0.129, 0.113, 0.146, 0.132], [0.176] * 4)
    assert is_better(strong, before) and not is_better(weak, before)
    assert pick_best([strong, weak]) is strong
    assert choose_candidate([before, weak]).candidate is before


def test_the_plainer_is_kept_unless_an_error_is_clearly_smaller() -> None:
    levels = candidate("levels", FOUR, [0.4, 0.4, 0.4, 0.4])
    in_two_folds = candidate("correction", FOUR, [0.3, 0.5, 0.3, 0.45])
    in_all = candidate("decoder", FOUR, [0.39, 0.39, 0.38, 0.39])
    assert choose_candidate([START, levels, in_two_folds]).candidate is levels
    assert choose_candidate([START, levels, in_two_folds, in_all]).candidate is in_all


def test_a_correction_with_a_smaller_error_is_kept_and_the_ridge_is_named() -> None:
    levels = candidate("levels", FOUR, [0.4, 0.4, 0.4, 0.4])
    correction = candidate("correction", [0.21, 0.29, 0.25, 0.29], [0.3, 0.3, 0.3, 0.3])
    ridge = candidate("ridge", [0.05, 0.1, 0.02, 0.0], [0.5, 0.5, 0.5, 0.5])
    choice = choose_candidate([START, levels, correction, ridge])
    assert choice.candidate is correction
    assert "0.258 -> 0.260" in choice.reason and "1.050 -> 0.300" in choice.reason
    assert "(ridge 0.043 and 0.500)" in choice.reason


def test_a_training_is_scored_at_epochs_that_other_folds_choose() -> None:
    """One fold loses what the three others gain; its own figure does not choose for it."""
    before = FoldScores(np.full(4, 0.2), np.full(4, 1.0))
    trained = FoldScores(np.array([0.3, 0.3, 0.3, 0.1]), np.full(4, 0.5))
    scores = pick_epoch_by_other_folds([before, trained])
    np.testing.assert_array_equal(scores.partial, [0.2, 0.2, 0.2, 0.1])
    np.testing.assert_array_equal(scores.mse, [1, 1, 1, 0.5])


def test_folds_without_a_figure_do_not_count() -> None:
    start = candidate("unchanged", [math.nan, 0.2, 0.2], [1.0, 1.0, 1.0])
    better = candidate("decoder", [math.nan, 0.3, 0.31], [1.0, 1.0, 1.0])
    assert choose_candidate([start, better]).candidate is better
    nothing = candidate("ridge", [math.nan] * 3, [math.nan] * 3)
    assert choose_candidate([start, nothing]).candidate is start
