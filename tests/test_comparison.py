"""Comparison of measured and predicted expression: metrics, intervals, regions, bad input."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student_t

from napari_dkan.cli import main
from napari_dkan.errors import SpotsError
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.inference.predict import predict
from napari_dkan.inference.prediction import Prediction
from napari_dkan.inference.target import target_from_spots
from napari_dkan.model import Checkpoint, load_checkpoint
from napari_dkan.quality.comparison import (
    Comparison,
    compare_with_measured,
    held_out_pcc_from_card,
)
from napari_dkan.quality.error_regions import find_error_regions
from napari_dkan.quality.model_comparison import compare_models
from napari_dkan.quality.spatial_domains import adjusted_rand_index, cluster_domains
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.block_bootstrap import BOOTSTRAP_SEED, assign_blocks, bootstrap_pcc
from napari_dkan.training.data.measured_section import MeasuredSection, make_measured_section
from napari_dkan.training.depth_metrics import depth_partial_pcc

SIDE = 12


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tiny_checkpoint_file: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint_file)


def section(genes: list[str], spots: int = SIDE * SIDE) -> anndata.AnnData:
    """Counts in which every gene has a pattern of its own, so that it can be judged."""
    random, at = np.random.default_rng(0), np.arange(spots)
    angles = 0.4 * np.outer(at % SIDE, np.arange(len(genes))) + (at // SIDE)[:, None]
    data = anndata.AnnData(
        random.poisson(20 * np.exp(np.sin(angles / 2))).astype(np.float32) + 1,
        obs=pd.DataFrame(
            {"array_col": at % SIDE, "array_row": at // SIDE}, index=[f"s{i}" for i in at]
        ),
        var=pd.DataFrame(index=genes),
    )
    data.obsm["spatial"] = 400 + 200.0 * np.stack([at % SIDE, at // SIDE], axis=1)
    data.uns = {"section": "made up", "spot_pitch_um": 140.0, "spot_diameter_um": 100.0}
    return data


def make_prediction(model: Checkpoint, measured: MeasuredSection, noise: float = 0.1) -> Prediction:
    """A prediction at the spots: labels with noise, 0 for genes that are not measured."""
    target = target_from_spots(measured.labeled_spots(), 10_000, 10_000)
    prediction = Prediction.create_empty(target, model.panel, model.label_scale, {}, token_dim=4)
    random = np.random.default_rng(1)
    prediction.tokens[:], prediction.values[:] = 0, 0
    labels = measured.labels.values
    prediction.values[:, list(measured.panel_rows)] = labels + random.normal(0, noise, labels.shape)
    return prediction


@pytest.fixture(scope="module")
def compared(model: Checkpoint) -> Comparison:
    measured = make_measured_section(section(list(model.panel.symbols)), model)
    prediction = make_prediction(model, measured)
    return compare_with_measured(
        model, measured, prediction, ridge=make_prediction(model, measured, 0.5).values
    )


def test_summary_equals_that_of_evaluate(data_dir: Path, tmp_path: Path, monkeypatch) -> None:
    crop, out = data_dir / "her2st" / "crop", tmp_path / "report.json"
    files = crop / "C3_crop.jpg", crop / "C3_crop.tsv.gz", crop / "C3_crop_selection.tsv"
    flags = ("--image", files[0], "--counts", files[1], "--spots", files[2], "-o", out)
    monkeypatch.setattr(sys, "argv", ["napari-dkan", "evaluate", *map(str, flags)])
    predictions: list[Prediction] = []

    def predict_and_record(*given) -> Prediction:
        predictions.append(predict(*given))
        return predictions[-1]

    monkeypatch.setattr(
        "napari_dkan.training.evaluation.evaluate_checkpoint.predict", predict_and_record
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    report = json.loads(out.read_text())

    model = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    section = read_single_section(*files)
    measured = make_measured_section(section, model)
    comparison = compare_with_measured(model, measured, predictions[0])
    summary, dkan_metrics = comparison.summary, report["metrics"]["dkan"]
    for name in ("pcc_all", "pcc_hpg", "pcc_heg", "pcc_hvg", "mse"):
        assert getattr(summary.dkan, name) == dkan_metrics[name], name
    assert (summary.n_spots, summary.n_genes) == (report["spots"], report["genes"]) == (66, 250)
    for row in comparison.metrics_per_gene:
        assert round(row.pcc, 4) == report["per_gene_pcc"][row.symbol]["dkan"]
        card = model.card["per_gene_pcc"][row.symbol]
        assert (row.expected_pcc, row.expected_ridge_pcc) == (card["dkan"], card["ridge"])
    assert summary.card_dkan is not None and summary.card_ridge is not None
    assert summary.card_dkan.pcc_all == pytest.approx(model.card["metrics"]["pcc_all"], abs=1e-3)
    assert summary.card_dkan.mse == model.card["metrics"]["dkan"]["mse"]
    assert len(comparison.spots_without_counts) == 1  # of 67 spots
    labelled = [n not in comparison.spots_without_counts for n in measured.data.obs_names]
    counts = section[:, "S100A14"].X.toarray().ravel()[labelled]
    zeros = comparison.zero_fraction[comparison.panel.row("S100A14")]
    assert zeros == pytest.approx((counts == 0).mean()) and zeros > 0.5
    assert f"PCC-ALL {dkan_metrics['pcc_all']:.2f}" in summary.format_verdict()

    measured_clusters, predicted_clusters = (
        cluster_domains(v, 0.5) for v in (comparison.measured, comparison.predicted)
    )
    # The section was trained on, so the clusters agree.
    assert adjusted_rand_index(measured_clusters, predicted_clusters) > 0.2
    assert (np.diff(np.bincount(measured_clusters)[1:]) <= 0).all()
    assert np.array_equal(cluster_domains(comparison.predicted, 0.5), predicted_clusters)


def test_metrics_of_a_gene(compared: Comparison) -> None:
    row = compared.metrics_per_gene[2]
    p, m = compared.predicted[:, 2], compared.measured[:, 2]
    assert row.symbol == compared.panel.symbols[2] and row.n_spots == SIDE * SIDE
    assert row.pcc == pytest.approx(np.corrcoef(p, m)[0, 1], abs=1e-5)
    assert row.spearman == pytest.approx(spearmanr(p, m).statistic, abs=1e-5)
    assert row.mse == pytest.approx(np.mean((p - m) ** 2), rel=1e-4)
    assert (row.mean, row.variance) == pytest.approx((m.mean(), m.var()), rel=1e-4)
    assert row.predicted_variance == pytest.approx(p.var(), rel=1e-4)
    assert row.low < row.pcc < row.high and row.zeros == 0
    assert row.ridge_pcc < row.pcc and row.ridge_mse > row.mse and np.isnan(row.expected_pcc)
    assert compared.reference is not None
    depth = compared.reference.depth
    assert row.partial == pytest.approx(depth_partial_pcc(p[:, None], m[:, None], depth)[0])
    assert row.partial_low < row.partial < row.partial_high
    assert row.ridge_partial < row.partial and 0 < row.ceiling <= 1 and row.is_judged
    assert np.isnan(row.expected_partial)
    assert compared.summary.n_better_than_ridge == compared.summary.n_compared == 6
    verdict = compared.summary.format_verdict()
    assert "DKAN better on 6 of 6 genes" in verdict and verdict.startswith("Depth-partial PCC 0.")
    assert compared.summary.depth_alone is not None
    assert f"depth alone {compared.summary.depth_alone.pcc_all:.2f}" in verdict
    assert np.array_equal(compared.residual, compared.predicted - compared.measured)


def test_intervals_are_those_of_a_plain_block_bootstrap() -> None:
    """Resample whole blocks one by one; widen by Student's t and the small-sample factor."""
    random, side = np.random.default_rng(4), np.arange(24)
    xy = 100.0 * np.stack([v.ravel() for v in np.meshgrid(side, side)], axis=1)
    spots = Spots(xy, None, tuple(map(str, range(576))), 50.0, 100.0)
    predicted = random.normal(size=(576, 3))
    measured = predicted + random.normal(size=(576, 3))
    block = assign_blocks(spots)
    n = int(block.max()) + 1
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=200)
    pcc = np.empty((200, 3))
    for row, times in enumerate(draws):
        rows = np.repeat(np.arange(576), times[block])
        pcc[row] = [np.corrcoef(predicted[rows, g], measured[rows, g])[0, 1] for g in range(3)]
    reach = student_t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    whole = np.array([np.corrcoef(predicted[:, g], measured[:, g])[0, 1] for g in range(3)])
    half_width = reach * np.arctanh(pcc).std(axis=0)
    intervals = bootstrap_pcc(predicted, measured, spots, n_resamples=200)
    assert intervals.n_blocks == n == 16
    np.testing.assert_allclose(intervals.low, np.tanh(np.arctanh(whole) - half_width), atol=1e-6)
    np.testing.assert_allclose(intervals.high, np.tanh(np.arctanh(whole) + half_width), atol=1e-6)
    mean_half_width = reach * pcc.mean(axis=1).std()
    assert intervals.mean_low == pytest.approx(whole.mean() - mean_half_width, abs=1e-6)
    assert intervals.mean_high == pytest.approx(whole.mean() + mean_half_width, abs=1e-6)


def test_depth_partial_intervals_regress_out_depth_in_every_resample() -> None:
    random, side = np.random.default_rng(4), np.arange(24)
    xy = 100.0 * np.stack([v.ravel() for v in np.meshgrid(side, side)], axis=1)
    spots = Spots(xy, None, tuple(map(str, range(576))), 50.0, 100.0)
    depth = 3 + random.normal(size=576)
    predicted = random.normal(size=(576, 3)) + depth[:, None]
    measured = predicted + 2 * random.normal(size=(576, 3)) - 3 * depth[:, None]
    predicted[:, 2] = 2 * depth - 1
    block = assign_blocks(spots)
    n = int(block.max()) + 1
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(n, np.full(n, 1 / n), size=100)
    pcc = np.empty((100, 3))
    for row, times in enumerate(draws):
        rows = np.repeat(np.arange(576), times[block])
        pcc[row] = depth_partial_pcc(predicted[rows], measured[rows], depth[rows])
    reach = student_t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))
    whole = depth_partial_pcc(predicted, measured, depth)
    half_width = reach * np.arctanh(pcc).std(axis=0)
    found = bootstrap_pcc(predicted, measured, spots, n_resamples=100, depth=depth)
    wanted = np.tanh(np.arctanh(whole) - half_width)
    np.testing.assert_allclose(found.low[:2], wanted[:2], atol=1e-6)
    assert np.isnan(found.low[2])  # a prediction that is depth alone has no interval
    plain = bootstrap_pcc(predicted, measured, spots, n_resamples=100)
    assert plain.high[0] < found.low[0]  # depth hid this gene
    level = bootstrap_pcc(predicted, measured, spots, n_resamples=100, depth=np.full(576, 3.0))
    np.testing.assert_allclose(level.low, plain.low, atol=1e-9)


def test_genes_of_too_few_counts_are_not_judged(model: Checkpoint) -> None:
    data = section(list(model.panel.symbols))
    data.X[:, 1] = 0
    data.X[7, 1] = 1
    measured = make_measured_section(data, model)
    found = compare_with_measured(
        model,
        measured,
        make_prediction(model, measured),
        ridge=make_prediction(model, measured, 0.5).values,
    )
    row = found.metrics_per_gene[1]
    assert not row.is_judged and np.isfinite(row.pcc)
    assert found.summary.n_compared == 5 and found.summary.n_not_judged == 1
    assert "1 genes cannot be judged here" not in found.summary.format_verdict()
    assert "1 gene cannot be judged here" in found.summary.format_verdict()
    both = compare_models(
        found.prediction, replace(found.prediction, values=-found.prediction.values), measured
    )
    assert [bool(g.preferred_model) for g in both.gene_comparisons] == [True, False, *[True] * 4]


def test_a_shallow_section_and_the_card_figures_beside_depth(model: Checkpoint) -> None:
    genes = list(model.panel.symbols)
    record = {"median_panel_totals": {"A": 5000}, "mean_profile": dict.fromkeys(genes, 1 / 6)}
    card = {
        **model.card,
        "training_data": record,
        "per_gene_pcc": {g: {"dkan": 0.5, "ridge": 0.4} for g in genes},
        "per_gene_depth_partial": {genes[0]: {"dkan": 0.3, "ridge": 0.2, "ceiling": 0.6}},
    }
    deep = replace(model, card=card)
    measured = make_measured_section(section(genes), deep)
    found = compare_with_measured(deep, measured, make_prediction(deep, measured))
    assert found.shallow is not None and "5,000 in the training sections" in found.shallow
    assert found.summary.dkan.deviance_explained is not None
    first, second = found.metrics_per_gene[:2]
    assert (first.expected_partial, first.expected_ridge_partial) == (0.3, 0.2)
    assert np.isnan(second.expected_partial) and second.expected_pcc == 0.5
    assert "the card expects 0.30" in found.summary.format_verdict()
    old = replace(deep, card={**model.card, "per_gene_pcc": card["per_gene_pcc"]})
    found = compare_with_measured(old, measured, make_prediction(old, measured))
    assert found.shallow is None and found.summary.dkan.deviance_explained is None
    assert "expects PCC-ALL 0.50 and does not record" in found.summary.format_verdict()


def test_intervals_are_wider_for_correlated_neighbours() -> None:
    column, row = np.meshgrid(np.arange(24), np.arange(24))
    spots = Spots(100.0 * np.stack([column.ravel(), row.ravel()], axis=1))
    blocks = assign_blocks(spots)
    assert sorted(np.bincount(blocks)) == [36] * 16
    random = np.random.default_rng(3)
    rough = random.normal(size=(2, 576, 50))
    smooth = np.repeat(np.repeat(random.normal(size=(2, 6, 6, 50)), 4, axis=1), 4, axis=2)
    narrow = bootstrap_pcc(*rough, spots)
    wide = bootstrap_pcc(*(smooth.reshape(2, 576, 50) + 0.1 * rough), spots)
    assert np.median(wide.high - wide.low) > 2 * np.median(narrow.high - narrow.low)
    # Noise has no correlation, so nearly all intervals contain 0.
    assert ((narrow.low < 0) & (narrow.high > 0)).mean() > 0.85
    again = bootstrap_pcc(*rough, spots)
    assert np.array_equal(narrow.low, again.low) and narrow.mean_low == again.mean_low
    few = bootstrap_pcc(*rough[:, :12], spots.take(np.arange(12)))
    assert np.isnan(few.low).all() and np.isnan(few.mean_low)


def test_worst_region_is_found(compared: Comparison) -> None:
    bad = compared.predicted.copy()
    corner = [r * SIDE + c for r in (2, 3, 4) for c in (7, 8, 9)]
    bad[corner, 1] += 2
    worse = replace(compared, predicted=bad)
    gene = compared.panel.symbols[1]
    for found in (find_error_regions(worse, gene), find_error_regions(worse)):
        first = found[0]
        assert sorted(first.spot_rows) == corner
        assert (first.x, first.y) == (400 + 8 * 200, 400 + 3 * 200)
        assert 200 * 2**0.5 < first.radius < 600 and first.relative_mse > 5
        assert not set(first.spot_rows) & {i for r in found[1:] for i in r.spot_rows}
    error = worse.residual[corner, 1] ** 2
    assert find_error_regions(worse, gene)[0].mse == pytest.approx(error.mean(), rel=1e-5)
    assert find_error_regions(replace(compared, predicted=compared.measured)) == ()


def test_models_are_compared_with_measured_data(model: Checkpoint, compared: Comparison) -> None:
    good = compared.prediction
    bad = replace(good, values=good.values + np.random.default_rng(5).normal(0, 1, (144, 6)))
    both = compare_models(good, bad.select_predicted(), compared)
    assert [g.preferred_model for g in both.gene_comparisons] == ["first"] * 6
    assert 0 < both.gene_comparisons[0].map_correlation < 1
    assert np.allclose(both.difference, bad.values - good.values, atol=1e-5)
    assert "(first) on 6 genes" in both.format_verdict()
    assert compared.reference is not None
    partial = depth_partial_pcc(compared.predicted, compared.measured, compared.reference.depth)
    assert [g.pcc_a for g in both.gene_comparisons] == pytest.approx(partial, abs=1e-5)
    assert np.isnan(compare_models(good, bad).gene_comparisons[0].pcc_a)
    with pytest.raises(SpotsError, match="different spots"):
        compare_models(good, replace(bad, target=bad.target.take(np.arange(9))))
    other_slides = [
        replace(p, provenance={"slide_fingerprint": f}) for p, f in ((good, "a"), (bad, "b"))
    ]
    with pytest.raises(SpotsError, match="different slides"):
        compare_models(*other_slides)


def test_only_measured_genes_and_readable_spots_are_compared(model: Checkpoint) -> None:
    measured = make_measured_section(section(["GATA3", "OTHER", "KRT8"]), model)
    prediction = make_prediction(model, measured)
    found = compare_with_measured(model, measured, prediction, ridge=prediction.values)
    assert found.panel.symbols == ("GATA3", "KRT8")
    assert np.array_equal(found.predicted, prediction.values[:, [1, 4]])
    assert np.array_equal(found.ridge, found.predicted)
    assert any("Only 2 of the checkpoint's 6 genes are measured" in n for n in found.caveats)
    # Only the spots at which the slide is damaged are left out.
    prediction.tokens[:5], prediction.values[:5] = np.nan, np.nan
    ridge = prediction.values.copy()  # a ridge baseline has none there either
    part = compare_with_measured(model, measured, prediction, ridge)
    assert len(part.spots) == len(part.measured) == len(part.predicted) == 139
    assert part.unreadable_spots == tuple(f"s{i}" for i in range(5))
    assert len(part.prediction.values) == 139
    assert np.array_equal(part.measured, found.measured[5:])
    # Of some spots: the others are neither compared nor unreadable.
    rows = np.array([50, 3, 20, 90, 91])
    some = compare_with_measured(model, measured, prediction, ridge, rows=rows)
    assert some.spots.names == ("s20", "s50", "s90", "s91") and some.unreadable_spots == ("s3",)
    assert np.array_equal(some.measured, found.measured[[20, 50, 90, 91]])
    assert some.reference is not None and part.reference is not None
    assert np.array_equal(some.reference.depth, part.reference.depth[[15, 45, 85, 86]])


def test_bad_input_is_refused(model: Checkpoint) -> None:
    genes = list(model.panel.symbols)
    data = section(genes)
    measured = make_measured_section(data, model)
    prediction = make_prediction(model, measured)

    def assert_refused(match: str, *given, **more) -> None:
        with pytest.raises(SpotsError, match=match):
            compare_with_measured(model, *given, **more)

    shifted = replace(
        prediction.target,
        spots=replace(prediction.target.spots, xy=prediction.target.spots.xy + 50),
    )
    assert_refused("other spots", measured, replace(prediction, target=shifted))
    assert_refused(
        "another checkpoint", measured, replace(prediction, provenance={"checkpoint_sha256": "x"})
    )
    assert_refused(
        "not predicted at all spots",
        measured,
        replace(prediction, values=prediction.values * np.nan),
    )
    assert_refused(
        "a correlation takes at least 3",
        measured,
        replace(prediction, tokens=prediction.tokens * np.nan),
    )
    assert_refused("ridge baseline does not fit", measured, prediction, ridge=prediction.values[:4])

    broken = data.copy()
    broken.X[3, 2] = np.nan
    with pytest.raises(SpotsError, match="negative or missing counts"):
        make_measured_section(broken, model)
    no_positions = data.copy()
    del no_positions.obsm["spatial"]
    with pytest.raises(SpotsError, match="no positions of its spots"):
        make_measured_section(no_positions, model)
    no_array = data.copy()
    no_array.obs = no_array.obs[[]]
    derived = make_measured_section(no_array, model)  # array coordinates of a lattice
    assert np.array_equal(derived.labels.values, measured.labels.values)
    no_array.obsm["spatial"] = np.random.default_rng(0).uniform(0, 5000, (len(no_array), 2))
    with pytest.raises(SpotsError, match="lie on no regular lattice"):
        make_measured_section(no_array, model)


def test_few_spots_and_constant_genes(model: Checkpoint) -> None:
    genes = list(model.panel.symbols)
    ten = make_measured_section(section(genes, 10), model)
    found = compare_with_measured(model, ten, make_prediction(model, ten))
    assert any("10 spots are few" in n for n in found.caveats)
    assert np.isfinite(found.metrics_per_gene[0].pcc) and np.isnan(found.metrics_per_gene[0].low)
    assert "PCC-ALL" in found.summary.format_verdict()
    assert set(cluster_domains(found.measured)) >= {1}
    with pytest.raises(SpotsError, match="9 spots are too few"):
        cluster_domains(found.measured[:9])

    one = make_measured_section(section(["GATA3"]), model)
    found = compare_with_measured(model, one, make_prediction(model, one))
    assert np.isnan(found.metrics_per_gene[0].pcc) and found.summary.dkan.pcc_all is None
    assert "No gene has a correlation" in found.summary.format_verdict()
    assert any("the same at all measured spots" in n for n in found.caveats)

    constant = section(genes)
    constant.X[:, 3] = 0
    constant.X[0] = 0
    measured = make_measured_section(constant, model)
    prediction = make_prediction(model, measured)
    prediction.values[:, 1] = 2
    found = compare_with_measured(model, measured, prediction)
    table = found.metrics_per_gene
    assert np.isnan(table[3].pcc) and table[3].zeros == 1 and np.isnan(table[3].spearman)
    assert np.isnan(table[1].pcc) and table[1].predicted_variance == 0
    assert np.isfinite([table[0].pcc, table[0].low]).all() and found.summary.dkan.n_genes == 4
    assert found.spots_without_counts == ("s0",)
    caveats = " ".join(found.caveats)
    assert "predicted the same at all spots" in caveats and "1 spot has no count" in caveats
    with pytest.raises(SpotsError, match="Fewer than two genes vary"):
        cluster_domains(np.ones((20, 5)))


def test_invalid_values_of_a_card_are_left_out() -> None:
    card = {"per_gene_pcc": {"A": {"dkan": 0.5, "ridge": None}, "B": 3, "C": {"dkan": "x"}}}
    assert held_out_pcc_from_card(card) == {"A": (0.5, None), "C": (None, None)}
    assert (
        held_out_pcc_from_card({}) == held_out_pcc_from_card({"per_gene_pcc": "not measured"}) == {}
    )
