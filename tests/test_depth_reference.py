"""Scores beside depth over sections, subsets of spots and genes, and the record of the training."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dkan.expression.label_scale import LabelScale, PanelCounts
from napari_dkan.expression.panel import Panel
from napari_dkan.training.depth_metrics import (
    depth_partial_pcc,
    deviance_explained,
    proportions_from_labels,
)
from napari_dkan.training.depth_reference import (
    DepthReference,
    TrainingDepth,
    compute_mean_profile,
)
from napari_dkan.training.evaluation.crossval_report import (
    REPORT_METRICS,
    format_metrics_table,
    summarize_scores,
    tabulate_depth_partial,
)
from napari_dkan.training.noise_ceiling import compute_noise_ceiling
from napari_dkan.training.prediction_scores import score_depth_alone, score_predictions

ARRAY = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2)
GENES = 5
PANEL = Panel.from_symbols([f"G{i}" for i in range(GENES)])


def counts_of(seed: int, total: float = 50) -> PanelCounts:
    rng = np.random.default_rng(seed)
    rates = total * rng.dirichlet(np.ones(GENES), len(ARRAY))
    return PanelCounts(1 + rng.poisson(rates).astype(np.float32), ARRAY, LabelScale())


def noisy(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    return labels + 0.2 * np.random.default_rng(seed).normal(size=labels.shape).astype(np.float32)


def test_scores_are_means_over_sections_and_then_over_genes() -> None:
    counts = {name: counts_of(i) for i, name in enumerate("AB")}
    profile = compute_mean_profile(list(counts.values()))
    references = {n: DepthReference(c, profile) for n, c in counts.items()}
    labels = {n: c.labels() for n, c in counts.items()}
    predicted = {n: noisy(y) for n, y in labels.items()}
    scores = score_predictions(predicted, labels, references)
    partial = [depth_partial_pcc(predicted[n], labels[n], counts[n].depth) for n in "AB"]
    ceiling = [compute_noise_ceiling(counts[n]).values for n in "AB"]
    found = scores.to_summary()
    assert found["depth_partial_pcc"] == pytest.approx(np.mean(partial), abs=1e-4)
    assert found["ceiling"] == pytest.approx(np.mean(ceiling), abs=1e-4)
    share = np.mean(partial) / np.mean(ceiling)
    assert found["share_of_attainable"] == pytest.approx(share, abs=1e-4)
    assert found["depth_partial_pcc_per_section"]["B"] == pytest.approx(partial[1].mean(), abs=1e-4)
    deviance = [
        deviance_explained(c.values, proportions_from_labels(predicted[n], c.scale), profile)
        for n, c in counts.items()
    ]
    assert found["deviance_explained"] == pytest.approx(np.mean(deviance), abs=1e-4)
    assert found["deviance_explained_3x3"] != found["deviance_explained"]
    # one section whose counts are unknown leaves no figure that looks like one of all sections
    some = score_predictions(predicted, labels, {"A": references["A"]}).to_summary()
    assert "depth_partial_pcc" not in some and some["pcc_all"] == found["pcc_all"]


def test_depth_alone_has_a_correlation_and_scores_zero_beside_depth() -> None:
    counts = counts_of(3)
    labels = {"A": counts.labels()}
    summary = score_depth_alone(labels, {"A": DepthReference(counts, np.ones(GENES))}).to_summary()
    assert summary["depth_partial_pcc"] == 0 and summary["share_of_attainable"] == 0
    assert summary["pcc_all"] == pytest.approx(
        np.mean([np.corrcoef(counts.depth, y)[0, 1] for y in labels["A"].T]), abs=1e-4
    )
    assert summary["mse"] is None and summary["deviance_explained"] is None


def test_a_part_of_the_spots_and_genes_is_scored_alone() -> None:
    counts, rows, genes = counts_of(4), np.arange(20, 55), np.array([3, 1])
    profile = compute_mean_profile([counts])
    part = DepthReference(counts, profile, rows, genes)
    labels = counts.labels()[rows][:, genes]
    np.testing.assert_array_equal(part.depth, counts.depth[rows])
    np.testing.assert_array_equal(
        part.ceiling.values, compute_noise_ceiling(counts, rows).values[genes]
    )
    pair = counts.values[rows][:, genes]
    wanted = deviance_explained(
        pair, proportions_from_labels(labels, counts.scale), profile[genes] / profile[genes].sum()
    )
    assert part.deviance_explained(labels) == pytest.approx(wanted)
    assert np.isnan(DepthReference(counts).deviance_explained(counts.labels()))


def test_the_record_of_the_training_survives_a_card() -> None:
    counts = {"A": counts_of(0, 100), "B": counts_of(1, 300)}
    record = TrainingDepth.of_sections(counts, PANEL)
    found = TrainingDepth.from_card({"training_data": record.to_card()})
    assert found is not None and found.median_totals == record.median_totals
    np.testing.assert_allclose(
        found.profile_of(PANEL), compute_mean_profile(list(counts.values())), rtol=1e-3
    )
    assert found.profile_of(Panel.from_symbols(["G0", "NEW"])) is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        "none",
        {},
        {"median_panel_totals": 5},
        {"median_panel_totals": {"A": "many"}},
        {"median_panel_totals": {"A": -1, "B": float("nan"), "C": True}},
    ],
)
def test_a_card_without_the_record_says_nothing(data: object) -> None:
    assert TrainingDepth.from_card({} if data is None else {"training_data": data}) is None


def test_a_shallow_section_is_one_of_a_third_of_the_lowest_training_section() -> None:
    record = TrainingDepth({"A": 300.0, "B": 900.0}, dict.fromkeys(PANEL.symbols, 0.2))
    flat = PanelCounts(np.full((64, GENES), 19, np.float32), ARRAY, LabelScale())  # 95 a spot
    text = record.describe_shallow(flat, PANEL)
    assert text is not None and "median of 95 panel counts a spot, 300 to 900 in the" in text
    enough = PanelCounts(np.full((64, GENES), 20, np.float32), ARRAY, LabelScale())
    assert record.describe_shallow(enough, PANEL) is None
    # two of five genes are measured: 38 counts are as deep as 95 of all five
    two = Panel.from_symbols(["G0", "G1"])
    text = record.describe_shallow(flat.take_genes([0, 1]), two)
    assert text is not None and "median of 38 panel counts a spot, 120 to 360" in text
    assert record.describe_shallow(enough.take_genes([0, 1]), two) is None


def test_the_printed_table_says_what_is_not_recorded() -> None:
    counts = counts_of(5)
    labels = {"A": counts.labels()}

    def table(profile: np.ndarray | None) -> str:
        references = {"A": DepthReference(counts, profile)}
        scores = score_predictions({"A": noisy(labels["A"])}, labels, references)
        return format_metrics_table({"dkan": summarize_scores(scores, 64)})

    with_profile = table(np.ones(GENES) / GENES)
    assert "PARTIAL" in with_profile and "DEVIANCE" in with_profile
    without = table(None)
    assert "DEVIANCE" not in without and "Deviance explained: not recorded" in without
    assert "genes have too few counts to be judged" in without
    old = format_metrics_table({"dkan": dict.fromkeys(REPORT_METRICS, None) | {"pcc_all": 0.5}})
    assert "PARTIAL" not in old and "0.5000" in old


def test_genes_that_cannot_be_judged_are_marked_in_the_table_of_genes() -> None:
    counts = counts_of(6)
    values = counts.values.copy()
    values[:, 2] = 0
    blank = PanelCounts(values, ARRAY, LabelScale())
    labels = {"A": blank.labels()}
    scores = {
        "dkan": score_predictions({"A": noisy(labels["A"])}, labels, {"A": DepthReference(blank)})
    }
    table = tabulate_depth_partial(scores, PANEL.symbols)
    assert table["G2"] == {"dkan": None, "ceiling": None, "judged": False}
    assert table["G0"]["ceiling"] is not None
    assert tabulate_depth_partial({"dkan": score_predictions(labels, labels)}, PANEL.symbols) == {}
