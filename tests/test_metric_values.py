"""Metrics and their intervals against plain formulas on small sections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.spatial  # loaded before the process is forked
import scipy.stats

from napari_dkan.expression.panel import Panel
from napari_dkan.quality.comparison import Comparison
from napari_dkan.quality.comparison_summary import ComparisonSummary, MethodMetrics
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.block_bootstrap import PccIntervals, assign_blocks, bootstrap_pcc
from napari_dkan.training.metrics import (
    gene_pcc,
    mean_gene_pcc,
    nanmean,
    nanmean_or_none,
    nanmean_over_rows,
    round_or_none,
)
from napari_dkan.training.prediction_scores import PredictionScores, score_predictions


def pcc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def noisy(seed: int, spots: int, genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Measured values of different size, and predictions of them, better gene by gene."""
    draw = np.random.default_rng(seed)
    measured = draw.normal(size=(spots, genes)) * (1 + np.arange(genes)) + draw.normal(size=genes)
    return draw.normal(size=measured.shape) * 3 + measured, measured


# --- correlation and scores -----------------------------------------------------------


def test_pearson_correlation_of_each_gene() -> None:
    p, m = noisy(0, 12, 4)
    p, m = p.astype(np.float32), m.astype(np.float32)  # the sums are in double precision
    found = gene_pcc(p, m)
    assert found.dtype == np.float64
    wanted = [pcc(p[:, g].astype(float), m[:, g].astype(float)) for g in range(4)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_gene_that_is_constant_in_either_has_no_correlation() -> None:
    p, m = noisy(0, 12, 5)
    p[:, 1], m[:, 2] = 3.0, -1.0
    p[:, 3] = 1 + np.arange(12) * 1e-11  # dust
    p[:, 4], m[:, 4] = np.arange(12) * 1e-8, np.arange(12) * -1e-8  # small, but they vary
    with np.errstate(all="raise"):
        found = gene_pcc(p, m)
    assert np.isnan(found).tolist() == [False, True, True, True, False]
    assert found[4] == pytest.approx(-1)


def test_the_mean_correlation_is_over_genes_that_are_measured_and_vary() -> None:
    p, m = noisy(11, 12, 5)
    m[:, 1], m[:, 3], p[:, 4] = np.nan, 2.0, 1.0
    wanted = (pcc(p[:, 0], m[:, 0]) + pcc(p[:, 2], m[:, 2])) / 2
    with np.errstate(all="raise"):
        assert mean_gene_pcc(p, m) == pytest.approx(wanted)
        assert np.isnan(mean_gene_pcc(p[:, 1:2], m[:, 1:2]))
    m[:3, 0] = np.nan  # measured in part: no correlation, and not left out in silence
    assert mean_gene_pcc(p, m) == pytest.approx(pcc(p[:, 2], m[:, 2]))


def test_means_of_what_is_defined() -> None:
    nan = np.nan
    with np.errstate(all="raise"):
        assert nanmean([1, nan, 4]) == 2.5 and np.isnan(nanmean([nan])) and np.isnan(nanmean([]))
        found = nanmean_over_rows(np.array([[1.0, nan, nan], [2.0, 8.0, nan]]))
    np.testing.assert_array_equal(found, [1.5, 8.0, nan])
    assert nanmean_or_none([1.0, nan, 1.00016]) == 1.0001 and nanmean_or_none([nan]) is None
    assert round_or_none(1.23456, 2) == 1.23 and round_or_none(-7.6, 0) == -8.0
    assert [round_or_none(v, 1) for v in (nan, np.inf, -np.inf)] == [None] * 3


def test_scores_of_two_sections_are_pooled() -> None:
    p, m = noisy(1, 20, 60)
    p[:8, 3] = 0.0  # one gene constant in the first section, one in both
    m[:, 5] = 2.0
    scores = score_predictions({"B": p[:8], "A": p[8:]}, {"A": m[8:], "B": m[:8], "C": m})
    first, second = gene_pcc(p[:8], m[:8]), gene_pcc(p[8:], m[8:])
    assert scores.sections == ("B", "A") and scores.n_undefined == 3
    np.testing.assert_array_equal(scores.pcc, [first, second])
    np.testing.assert_allclose(
        scores.mse, [((p[:8] - m[:8]) ** 2).mean(), ((p[8:] - m[8:]) ** 2).mean()]
    )
    np.testing.assert_allclose(
        scores.mae, [np.abs(p[:8] - m[:8]).mean(), np.abs(p[8:] - m[8:]).mean()]
    )
    assert scores.heg.tolist() == sorted(range(60), key=lambda g: -m[:, g].mean())[:50]
    assert scores.hvg.tolist() == sorted(range(60), key=lambda g: -m[:, g].var())[:50]
    assert scores.heg.dtype == scores.hvg.dtype == np.int64
    wanted = (first + second) / 2
    wanted[3] = second[3]
    np.testing.assert_allclose(scores.pcc_per_gene, wanted)
    summary = scores.to_summary()
    best = np.sort(np.delete(wanted, 5))[-50:]
    assert summary == {
        "pcc_all": round(float(np.nanmean(wanted)), 4),
        "pcc_hpg": round(float(best.mean()), 4),
        "pcc_heg": round(float(np.nanmean(wanted[scores.heg])), 4),
        "pcc_hvg": round(float(np.nanmean(wanted[scores.hvg])), 4),
        "mse": round(float(scores.mse.mean()), 4),
        "mae": round(float(scores.mae.mean()), 4),
        "pcc_all_per_section": {
            "B": round(float(np.nanmean(first)), 4),
            "A": round(float(np.nanmean(second)), 4),
        },
        "gene_section_pairs_without_pcc": 3,
        "genes_without_pcc": 1,
    }


def test_genes_of_equal_mean_keep_their_order() -> None:
    m = np.tile([[1.0, 5.0, 1.0, 5.0], [3.0, 5.0, 3.0, 5.0]], (3, 1))
    scores = score_predictions({"A": m}, {"A": m})
    assert scores.heg.tolist() == [1, 3, 0, 2] and scores.hvg.tolist() == [0, 2, 1, 3]
    many = np.tile(m, 15)
    order = [*range(1, 60, 2), *range(0, 40, 2)]
    assert score_predictions({"A": many}, {"A": many}).heg.tolist() == order


def test_a_figure_that_is_not_defined_is_none() -> None:
    flat = np.ones((4, 3))
    summary = score_predictions({"A": flat}, {"A": flat}).to_summary()
    assert (summary["pcc_all"], summary["pcc_hpg"], summary["pcc_heg"]) == (None, None, None)
    assert summary["pcc_all_per_section"] == {"A": None} and summary["mse"] == 0.0
    assert summary["genes_without_pcc"] == 3
    scores = PredictionScores(("A", "B"), *(np.zeros((1, 2)),) * 3, *(np.arange(2),) * 2)
    with pytest.raises(ValueError, match="zip"):
        scores.to_summary()


# --- blocks and intervals -------------------------------------------------------------


def square(columns: int, rows: int, pitch: float = 10.0) -> Spots:
    y, x = (a.ravel() for a in np.mgrid[:rows, :columns])
    return Spots(np.column_stack([x, y]) * pitch + [500, 70])


def test_blocks_are_squares_centred_on_the_spots() -> None:
    # 8 spots in 3 blocks of 3: half a place is left over on either side
    part = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    wanted = np.array([0, 0, 1, 1, 1])[:, None] * 3 + part[None]
    assert assign_blocks(square(8, 5), 3).reshape(5, 8).tolist() == wanted.tolist()
    blocks = assign_blocks(square(12, 12))
    assert blocks.dtype == np.int64 and np.bincount(blocks).tolist() == [36] * 4
    assert np.array_equal(assign_blocks(square(12, 12, 0.5)), blocks)
    assert np.bincount(assign_blocks(square(12, 6), 3)).tolist() == [9] * 8
    assert assign_blocks(square(6, 6)).tolist() == [0] * 36
    assert np.bincount(assign_blocks(square(13, 6))).tolist() == [18, 36, 24]


def test_blocks_that_hold_no_spot_are_not_counted() -> None:
    spots = square(9, 3).take([0, 1, 9, 7, 8])
    assert assign_blocks(spots, 3).tolist() == [0, 0, 0, 1, 1]


def test_spots_without_a_pitch_are_one_block() -> None:
    assert assign_blocks(Spots(np.zeros((0, 2)))).dtype == np.int64
    assert assign_blocks(Spots(np.zeros((4, 2)))).dtype == np.int64
    assert assign_blocks(Spots(np.zeros((0, 2)))).tolist() == []
    assert assign_blocks(Spots(np.array([[3.0, 4.0]]))).tolist() == [0]
    assert assign_blocks(Spots(np.array([[3.0, 4.0], [90.0, 4.0]]))).tolist() == [0, 0]
    assert assign_blocks(Spots(np.array([[0.0, 0.0], [0, 0], [9, 9], [9, 9]]))).tolist() == [0] * 4


def plain_bootstrap(p, m, block, times: int):
    """Resamples written out: all spots of the blocks drawn, as often as they are drawn."""
    count = block.max() + 1
    draw = np.random.default_rng(2021)
    drawn = draw.multinomial(count, np.full(count, 1 / count), size=times)
    found = np.full((times, p.shape[1]), np.nan)
    for row, often in enumerate(drawn):
        spots = np.repeat(np.arange(len(p)), often[block])
        for g in range(p.shape[1]):
            if np.ptp(p[spots, g]) > 0 and np.ptp(m[spots, g]) > 0:
                found[row, g] = pcc(p[spots, g], m[spots, g])
    widen = scipy.stats.t.ppf(0.975, count - 1) * np.sqrt(count / (count - 1))
    z = np.arctanh([pcc(p[:, g], m[:, g]) for g in range(p.shape[1])])
    half = widen * np.nanstd(np.arctanh(found), axis=0)
    mean, half_all = np.tanh(z).mean(), widen * np.nanmean(found, axis=1).std()
    return np.tanh(z - half), np.tanh(z + half), mean - half_all, mean + half_all


def test_intervals_are_those_of_resampled_blocks() -> None:
    spots = square(9, 9)
    p, m = noisy(3, 81, 4)
    p[:, 3], m[:, 3] = p[:, 3] * 1e-3, m[:, 3] * 1e-3  # a gene of small values
    p, m = p + 1e6 * (np.arange(4) == 2), m - 1e6 * (np.arange(4) == 1)  # far from zero
    low, high, mean_low, mean_high = plain_bootstrap(p, m, assign_blocks(spots, 3), 60)
    found = bootstrap_pcc(p, m, spots, n_resamples=60, side_pitches=3)
    np.testing.assert_allclose(found.low, low, rtol=1e-6)
    np.testing.assert_allclose(found.high, high, rtol=1e-6)
    assert (found.mean_low, found.mean_high) == pytest.approx((mean_low, mean_high), rel=1e-6)
    assert found.n_blocks == 9 and (found.low < found.high).all()


def test_a_thousand_resamples_of_blocks_of_six_unless_asked() -> None:
    spots = square(12, 12)
    p, m = (v.astype(np.float32) for v in noisy(4, 144, 2))
    block = assign_blocks(spots, 6)
    low, high, *mean = plain_bootstrap(p.astype(float), m.astype(float), block, 1000)
    found = bootstrap_pcc(p, m, spots)
    assert found.n_blocks == 4
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-9)
    assert (found.mean_low, found.mean_high) == pytest.approx(tuple(np.clip(mean, -1, 1)), rel=1e-4)


def test_too_few_blocks_give_no_interval() -> None:
    spots = square(9, 3)
    p, m = noisy(5, 27, 2)
    found = bootstrap_pcc(p, m, spots, 20, 3)
    assert found.n_blocks == 3
    assert np.isnan([*found.low, *found.high, found.mean_low, found.mean_high]).all()
    assert len(found.low) == len(found.high) == 2


def test_a_gene_without_a_correlation_has_no_interval_and_spoils_no_other() -> None:
    spots = square(9, 9)
    p, m = noisy(6, 81, 5)
    plain = bootstrap_pcc(p[:, [0, 3, 4]], m[:, [0, 3, 4]], spots, 60, 3)
    p[:, 1], m[:, 2] = 1.0, 2.0
    found = bootstrap_pcc(p, m, spots, 60, 3)
    assert np.isnan(found.low).tolist() == [False, True, True, False, False]
    assert np.isnan(found.high).tolist() == [False, True, True, False, False]
    np.testing.assert_allclose(found.low[[0, 3, 4]], plain.low)
    assert found.mean_high == pytest.approx(plain.mean_high)
    nothing = bootstrap_pcc(np.ones((81, 2)), m[:, :2], spots, 60, 3)
    assert nothing.n_blocks == 9 and np.isnan(nothing.mean_low) and np.isnan(nothing.mean_high)
    assert np.isnan([*nothing.low, *nothing.high]).all() and len(nothing.low) == 2


def test_a_gene_seen_in_one_block_is_judged_by_the_resamples_that_hold_it() -> None:
    spots = square(9, 9)
    p, m = noisy(7, 81, 3)
    block = assign_blocks(spots, 3)
    m[:, :2] = 0
    m[block == 4, :2] = [[v, v] for v in (-4, -3, -2, -1, 0, 1, 2, 3, 4)]
    p[:, 1] = 0
    p[block == 3, 1] = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    low, high, *_ = plain_bootstrap(p, m, block, 60)
    found = bootstrap_pcc(p, m, spots, 60, 3)
    # two thirds of the resamples hold block 4; those that hold 3 and 4 both are less than half
    low[1], high[1] = np.nan, np.nan
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-6)
    mean = (found.mean_low + found.mean_high) / 2
    assert mean == pytest.approx((pcc(p[:, 0], m[:, 0]) + pcc(p[:, 2], m[:, 2])) / 2)


def test_intervals_of_perfect_predictions_end_at_one() -> None:
    spots = square(9, 9)
    _, m = noisy(8, 81, 2)
    found = bootstrap_pcc(m, m, spots, 30, 3)
    assert found.low == pytest.approx([1, 1], abs=1e-5) and (found.high <= 1).all()
    assert (found.mean_low, found.mean_high) == pytest.approx((1, 1)) and found.mean_high <= 1
    against = bootstrap_pcc(-m, m, spots, 30, 3)
    assert against.high == pytest.approx([-1, -1], abs=1e-5) and against.mean_low >= -1


def test_an_interval_of_the_mean_ends_at_one() -> None:
    spots = square(12, 12)
    _, m = noisy(8, 144, 2)
    p = np.where((assign_blocks(spots) == 0)[:, None], -m, m)
    found = bootstrap_pcc(p, m, spots, 50)  # of four blocks one speaks against the others
    assert (found.mean_low, found.mean_high) == (-1.0, 1.0)


# --- the table of genes and its summary -----------------------------------------------


def comparison(**changes: Any) -> Comparison:
    p, m = (v.astype(np.float32) for v in noisy(9, 144, 3))
    p[:30, 0] = p[0, 0]  # ties share their rank
    made = Comparison(
        "C1",
        Panel.from_symbols(["A", "B", "C"]),
        square(12, 12),
        m,
        p,
        p[::-1].copy() * 0.5 + m,
        np.array([0.1, 0.2, 0.3]),
        prediction=None,  # type: ignore[arg-type]
        held_out_pcc={"A": (0.5, 0.25), "C": (None, 0.75)},
        held_out_mse=(1.25, 2.25),
    )
    return replace(made, **changes)


def test_every_figure_of_a_gene() -> None:
    c = comparison()
    rows = c.metrics_per_gene
    assert [r.symbol for r in rows] == ["A", "B", "C"]
    interval = bootstrap_pcc(c.predicted, c.measured, c.spots)
    expected = [(0.5, 0.25), (np.nan, np.nan), (np.nan, 0.75)]
    for g, row in enumerate(rows):
        p, m, r = (v[:, g].astype(float) for v in (c.predicted, c.measured, c.ridge))
        assert row.n_spots == 144 and row.zeros == c.zero_fraction[g]
        assert (row.low, row.high) == (interval.low[g], interval.high[g])
        found = [row.pcc, row.spearman, row.mse, row.mean, row.variance]
        found += [row.predicted_mean, row.predicted_variance]
        rank = scipy.stats.spearmanr(p, m).statistic
        wanted = [pcc(p, m), rank, ((p - m) ** 2).mean(), m.mean(), m.var(), p.mean(), p.var()]
        assert found == pytest.approx(wanted, rel=1e-5)
        rank = scipy.stats.spearmanr(r, m).statistic
        wanted = [pcc(r, m), rank, ((r - m) ** 2).mean()]
        assert [row.ridge_pcc, row.ridge_spearman, row.ridge_mse] == pytest.approx(wanted, rel=1e-5)
        assert [row.expected_pcc, row.expected_ridge_pcc] == pytest.approx(expected[g], nan_ok=True)


def test_figures_of_a_method_that_is_not_there_are_undefined() -> None:
    row = comparison(ridge=None, held_out_pcc={}).metrics_per_gene[1]
    figures = [row.ridge_pcc, row.ridge_spearman, row.ridge_mse]
    assert np.isnan([*figures, row.expected_pcc, row.expected_ridge_pcc]).all()


def mean_of(*values: float) -> float:
    return round(float(np.mean(values)), 4)


def test_the_summary_of_a_comparison() -> None:
    c = comparison(seen_in_training=True)
    ours = [pcc(c.predicted[:, g], c.measured[:, g]) for g in range(3)]
    theirs = [pcc(c.ridge[:, g], c.measured[:, g]) for g in range(3)]
    summary = c.summary
    assert (summary.n_spots, summary.n_genes, summary.seen_in_training) == (144, 3, True)
    mse = round(float(((c.predicted - c.measured) ** 2).mean()), 4)
    assert summary.dkan == MethodMetrics(*(mean_of(*ours),) * 4, mse, 3)
    mse = round(float(((c.ridge - c.measured) ** 2).mean()), 4)
    assert summary.ridge == MethodMetrics(*(mean_of(*theirs),) * 4, mse, 3)
    assert summary.card_dkan == MethodMetrics(0.5, 0.5, 0.5, 0.5, 1.25, 1)
    assert summary.card_ridge == MethodMetrics(0.5, 0.5, 0.5, 0.5, 2.25, 2)
    interval = c.pcc_intervals
    assert (summary.pcc_low, summary.pcc_high) == (interval.mean_low, interval.mean_high)
    better = sum(a > b for a, b in zip(ours, theirs, strict=True))
    assert (summary.n_better_than_ridge, summary.n_compared) == (better, 3)


def test_the_card_is_read_over_the_genes_of_highest_mean_and_variance_here() -> None:
    p, m = (v.astype(np.float32) for v in noisy(10, 144, 60))
    genes = [f"G{i}" for i in range(60)]
    held_out = {gene: (7 * i % 60 / 100, 7 * i % 60 / 200) for i, gene in enumerate(genes)}
    c = comparison(
        panel=Panel.from_symbols(genes),
        measured=m,
        predicted=p,
        ridge=None,
        zero_fraction=np.zeros(60),
        held_out_pcc=held_out,
    )
    heg = sorted(range(60), key=lambda g: -m[:, g].mean())[:50]
    hvg = sorted(range(60), key=lambda g: -m[:, g].var())[:50]
    wanted = [mean_of(*range(60)), mean_of(*range(10, 60))]
    wanted += [mean_of(*(7 * g % 60 for g in rows)) for rows in (heg, hvg)]
    for found, scale in ((c.summary.card_dkan, 100), (c.summary.card_ridge, 200)):
        assert found is not None and found.n_genes == 60
        figures = [found.pcc_all, found.pcc_hpg, found.pcc_heg, found.pcc_hvg]
        assert figures == pytest.approx([w / scale for w in wanted], abs=1e-4)
    assert len(set(wanted)) == 4


def test_only_genes_that_both_methods_have_are_compared() -> None:
    c = comparison()
    assert c.ridge is not None
    c.ridge[:, 0] = 1.0
    c.predicted[:, 1] = c.measured[:, 1]  # a correlation of one beats the ridge
    c.ridge[:, 2] = c.predicted[:, 2]  # the same is no better
    summary = c.summary
    assert (summary.n_better_than_ridge, summary.n_compared) == (1, 2)
    assert summary.ridge is not None and summary.ridge.n_genes == 2
    alone = comparison(ridge=None, held_out_pcc={"A": (0.5, None)}).summary
    assert (alone.ridge, alone.n_better_than_ridge, alone.n_compared) == (None, 0, 0)
    assert alone.card_ridge is None and alone.card_dkan is not None
    assert list(alone.metrics_by_method()) == ["DKAN", "DKAN, held-out sections (card)"]
    other = comparison(method="TRIPLEX").summary
    assert next(iter(other.metrics_by_method())) == "TRIPLEX"
    assert "TRIPLEX better on" in other.format_verdict()
    assert not alone.seen_in_training


def summary(**changes: Any) -> ComparisonSummary:
    made = ComparisonSummary(
        n_spots=90,
        n_genes=3,
        dkan=MethodMetrics(0.41),
        ridge=MethodMetrics(0.32),
        card_dkan=MethodMetrics(0.23),
        card_ridge=MethodMetrics(0.14),
        pcc_low=0.30,
        pcc_high=0.52,
        n_better_than_ridge=2,
        n_compared=3,
        seen_in_training=False,
    )
    return replace(made, **changes)


def test_the_verdict_in_words() -> None:
    assert summary().format_verdict() == (
        "PCC-ALL 0.41 (95 % 0.30 to 0.52) over 3 genes and 90 spots; ridge 0.32, DKAN better on "
        "2 of 3 genes; the card expects 0.23."
    )
    nothing = MethodMetrics()
    bare = summary(n_genes=1, ridge=None, card_dkan=None, pcc_low=np.nan, seen_in_training=True)
    assert bare.format_verdict() == (
        "PCC-ALL 0.41 over 1 gene and 90 spots. This slide was trained on: no measure of quality."
    )
    assert (
        summary(ridge=nothing, card_dkan=nothing, pcc_low=np.nan).format_verdict()
        == "PCC-ALL 0.41 over 3 genes and 90 spots."
    )
    assert summary(dkan=nothing).format_verdict() == (
        "No gene has a correlation over 3 genes and 90 spots: measured or predicted is constant."
    )
    assert list(summary().metrics_by_method().values()) == [
        MethodMetrics(v) for v in (0.41, 0.32, 0.23, 0.14)
    ]
    assert list(summary().metrics_by_method()) == [
        "DKAN",
        "ridge",
        "DKAN, held-out sections (card)",
        "ridge, held-out sections (card)",
    ]


def test_intervals_hold_what_they_were_given() -> None:
    made = PccIntervals(np.zeros(1), np.ones(1), 0.25, 0.5, 7)
    assert (made.mean_low, made.mean_high, made.n_blocks) == (0.25, 0.5, 7)
