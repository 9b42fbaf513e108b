"""Depth-partial correlation, noise ceiling, deviance and thinning against plain formulas."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from napari_dkan.errors import SpotsError
from napari_dkan.expression.count_thinning import thin_counts, thin_section
from napari_dkan.expression.label_scale import LabelScale, PanelCounts, labels_from_section
from napari_dkan.expression.panel import Panel
from napari_dkan.training.depth_metrics import (
    depth_alone_pcc,
    depth_partial_pcc,
    deviance_explained,
    multinomial_deviance,
    predict_with_depth,
    proportions_from_labels,
)
from napari_dkan.training.metrics import gene_pcc, nanmean
from napari_dkan.training.noise_ceiling import compute_noise_ceiling, share_of_attainable

SIDE, GENES = 14, 40
ARRAY = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
SCALE = LabelScale()


def tissue(total: float, seed: int = 0) -> tuple[np.ndarray, PanelCounts, PanelCounts]:
    """Genes with smooth patterns of their own, and a depth that follows a pattern of no gene.

    Returns the proportions, the counts at this median total, and counts almost without noise.
    """
    rng = np.random.default_rng(seed)
    x, y = ARRAY.T / SIDE
    waves = np.stack([np.sin(2 * np.pi * (f * x + g * y)) for f, g in ((1, 0), (0, 1), (1, 1))], 1)
    rates = np.exp(waves @ rng.normal(size=(3, GENES)) + rng.normal(size=GENES))
    rates /= rates.sum(axis=1, keepdims=True)
    depth = total * np.exp(0.5 * np.cos(3 * np.pi * x))
    counts = rng.poisson(rates * depth[:, None]).astype(np.float32)
    counts[:, 0] += 1  # no empty spot
    deep = rng.poisson(rates * depth[:, None] * 1000).astype(np.float32)
    return rates, PanelCounts(counts, ARRAY, SCALE), PanelCounts(deep, ARRAY, SCALE)


def noisy(seed: int, n: int = 30, genes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = rng.normal(3, 0.3, n)
    measured = rng.normal(size=(n, genes)) + 2 * depth[:, None]
    return measured + rng.normal(size=(n, genes)) - depth[:, None], measured, depth


# --- depth ----------------------------------------------------------------------------


def test_depth_is_averaged_over_present_neighbours_like_the_labels() -> None:
    array = np.array([[0, 0], [1, 0], [2, 0], [5, 5]])
    counts = PanelCounts(np.array([[9, 0], [90, 9], [999, 0], [3, 6]], np.float32), array, SCALE)
    logs = np.log10([10, 100, 1000, 10])
    wanted = [logs[:2].mean(), logs[:3].mean(), logs[1:3].mean(), logs[3]]
    np.testing.assert_allclose(counts.depth, wanted, rtol=1e-12)
    unsmoothed = PanelCounts(counts.values, array, LabelScale(smoothing=1))
    np.testing.assert_allclose(unsmoothed.depth, logs, rtol=1e-12)
    assert counts.median_total == pytest.approx((9 + 99) / 2)
    np.testing.assert_array_equal(counts.sum_over_neighbors(counts.values)[0], [99, 9])


def test_the_labels_of_a_section_carry_the_counts_they_are_made_of() -> None:
    data = anndata.AnnData(
        sparse.csr_matrix(np.array([[1, 2, 7], [0, 0, 3], [4, 0, 1]], np.float32)),
        obs=pd.DataFrame({"array_col": [0, 1, 2], "array_row": [0, 0, 0]}, index=list("abc")),
        var=pd.DataFrame(index=["A", "B", "C"]),
    )
    labels = labels_from_section(data, Panel.from_symbols(["B", "A"]), SCALE)
    np.testing.assert_array_equal(labels.counts.values, [[2, 1], [0, 4]])
    np.testing.assert_array_equal(labels.counts.array, [[0, 0], [2, 0]])
    np.testing.assert_array_equal(labels.counts.labels(), labels.values)


def test_depth_alone_is_the_plain_correlation_of_the_depth() -> None:
    _, measured, depth = noisy(3)
    wanted = [np.corrcoef(depth, measured[:, g])[0, 1] for g in range(3)]
    np.testing.assert_allclose(depth_alone_pcc(measured, depth), wanted, rtol=1e-12)


# --- depth-partial correlation ----------------------------------------------------------


def literal_partial(p: np.ndarray, m: np.ndarray, d: np.ndarray) -> float:
    """Residuals of two regressions on (1, depth), as the definition says."""
    design = np.column_stack([np.ones(len(d)), d])
    residuals = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (p, m)]
    return float(np.corrcoef(*residuals)[0, 1])


def test_the_partial_correlation_is_that_of_the_residuals() -> None:
    p, m, d = noisy(0)
    found = depth_partial_pcc(p.astype(np.float32), m.astype(np.float32), d)
    np.testing.assert_allclose(
        found, [literal_partial(p[:, g], m[:, g], d) for g in range(3)], 1e-4
    )
    r = {
        k: scipy.stats.pearsonr(*v).statistic
        for k, v in {"pm": (p[:, 0], m[:, 0]), "pd": (p[:, 0], d), "md": (m[:, 0], d)}.items()
    }
    textbook = (r["pm"] - r["pd"] * r["md"]) / np.sqrt((1 - r["pd"] ** 2) * (1 - r["md"] ** 2))
    assert depth_partial_pcc(p, m, d)[0] == pytest.approx(textbook)


def test_a_prediction_that_is_pure_depth_scores_zero() -> None:
    _, shallow, _ = tissue(100)
    labels, depth = shallow.labels(), shallow.depth
    exact = predict_with_depth(depth, GENES).astype(np.float32) * np.linspace(-2, 3, GENES) + 1
    np.testing.assert_array_equal(depth_partial_pcc(exact, labels, depth), np.zeros(GENES))
    rng = np.random.default_rng(0)
    with_noise = exact + 0.1 * rng.normal(size=exact.shape)
    assert abs(nanmean(depth_partial_pcc(with_noise, labels, depth))) < 0.03
    assert np.abs(gene_pcc(exact, labels)).mean() > 0.2  # plain correlation is deceived


def test_a_constant_is_undefined_and_not_zero() -> None:
    p, m, d = noisy(1, genes=6)
    p[:, 0], m[:, 1] = 2.0, -1.0
    m[:, 2] = 3 * d + 1  # nothing is left of this gene
    p[0, 3] = np.nan
    p[:, 4] = d
    with np.errstate(all="raise"):
        found = depth_partial_pcc(p, m, d)
    assert np.isnan(found).tolist() == [True, True, True, True, False, False]
    assert found[4] == 0
    assert np.isnan(depth_partial_pcc(p[:3], m[:3], d[:3])).all()


def test_without_variation_in_depth_it_is_the_plain_correlation() -> None:
    p, m, d = noisy(2)
    found = depth_partial_pcc(p, m, np.full_like(d, 3.2))
    np.testing.assert_allclose(found, gene_pcc(p, m), rtol=1e-9)


@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 9), st.floats(-5, 5))
@settings(max_examples=60, deadline=None)
def test_order_level_scale_and_added_depth_do_not_matter(seed, level, factor, added) -> None:
    p, m, d = noisy(seed)
    wanted = depth_partial_pcc(p, m, d)
    order = np.random.default_rng(seed).permutation(len(d))
    np.testing.assert_allclose(depth_partial_pcc(p[order], m[order], d[order]), wanted, atol=1e-9)
    changed = level + factor * p + added * d[:, None]
    np.testing.assert_allclose(depth_partial_pcc(changed, m, 7 * d - 2), wanted, atol=1e-7)
    np.testing.assert_allclose(depth_partial_pcc(-p, m, d), -wanted, atol=1e-9)


# --- ceiling ----------------------------------------------------------------------------


def test_the_ceiling_is_the_recipe_written_out() -> None:
    _, counts, _ = tissue(60)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(5):
        half = rng.binomial(counts.values.astype(int), 0.5)
        sides = [half, counts.values - half]
        keep = (sides[0].sum(axis=1) > 0) & (sides[1].sum(axis=1) > 0)
        assert keep.all()
        a, b = (PanelCounts(s.astype(np.float32), ARRAY, SCALE).labels() for s in sides)
        draws.append([literal_partial(a[:, g], b[:, g], counts.depth) for g in range(GENES)])
    r = np.clip(np.mean(draws, axis=0), 0, None)
    found = compute_noise_ceiling(counts)
    np.testing.assert_allclose(found.values, np.sqrt(2 * r / (1 + r)), atol=1e-4)
    spread = 2 * np.std(draws, axis=0, ddof=1)
    np.testing.assert_array_equal(found.is_judged, np.mean(draws, axis=0) > spread)


@pytest.mark.parametrize("total", [30, 100, 1000])
def test_a_perfect_prediction_of_thin_counts_reaches_the_ceiling_and_a_wrong_gene_does_not(
    total: int,
) -> None:
    _, counts, deep = tissue(total)
    labels, depth = counts.labels(), counts.depth
    ceiling = compute_noise_ceiling(counts)
    perfect = depth_partial_pcc(deep.labels(), labels, depth)
    assert share_of_attainable(perfect, ceiling.values) == pytest.approx(1, abs=0.05)
    wrong = depth_partial_pcc(np.roll(deep.labels(), 1, axis=1), labels, depth)
    assert share_of_attainable(wrong, ceiling.values) < 0.4


def test_fewer_counts_have_a_lower_ceiling() -> None:
    ceilings = [compute_noise_ceiling(tissue(total)[1]).mean for total in (10, 100, 1000)]
    assert ceilings == sorted(ceilings) and ceilings[2] - ceilings[0] > 0.2


def test_genes_of_pure_noise_are_not_judged() -> None:
    rng = np.random.default_rng(5)
    profile = rng.dirichlet(np.ones(GENES))
    totals = rng.integers(50, 300, len(ARRAY))
    counts = np.stack([rng.multinomial(t, profile) for t in totals]).astype(np.float32)
    assert compute_noise_ceiling(PanelCounts(counts, ARRAY, SCALE)).is_judged.mean() <= 0.2
    assert compute_noise_ceiling(tissue(1000)[1]).is_judged.mean() > 0.9


def test_a_gene_without_counts_has_no_ceiling_and_is_not_judged() -> None:
    _, counts, _ = tissue(100)
    values = counts.values.copy()
    values[:, 3] = 0
    with np.errstate(all="raise"):
        found = compute_noise_ceiling(PanelCounts(values, ARRAY, SCALE))
    assert np.isnan(found.values[3]) and not found.is_judged[3]
    assert np.isfinite(np.delete(found.values, 3)).all()


def test_the_ceiling_of_some_spots_smooths_over_all() -> None:
    _, counts, _ = tissue(100)
    rows = np.arange(60, 130)
    some = compute_noise_ceiling(counts, rows)
    alone = compute_noise_ceiling(counts.take(rows))
    assert not np.allclose(some.values, alone.values)
    repeated = compute_noise_ceiling(counts, rows)
    np.testing.assert_array_equal(some.values, repeated.values)


def test_spots_whose_half_is_empty_are_left_out() -> None:
    _, counts, _ = tissue(100)
    values = counts.values.copy()
    values[:10] = 0
    values[:10, 1] = 1  # one molecule: one half of the spot has none
    with np.errstate(all="raise"):
        assert np.isfinite(compute_noise_ceiling(PanelCounts(values, ARRAY, SCALE)).mean)


def test_the_share_is_of_the_genes_that_have_both() -> None:
    share = share_of_attainable(np.array([0.2, np.nan, 0.4]), np.array([0.6, 0.9, np.nan]))
    assert share == pytest.approx(0.2 / 0.6)
    assert np.isnan(share_of_attainable(np.array([np.nan]), np.array([0.5])))
    assert np.isnan(share_of_attainable(np.array([0.1]), np.array([0.0])))


# --- deviance ----------------------------------------------------------------------------


def test_the_deviance_is_twice_the_log_likelihood_ratio() -> None:
    counts = np.array([[3.0, 0, 5], [1, 1, 2]])
    p = np.array([0.2, 0.3, 0.5])
    wanted = [
        2
        * (
            scipy.stats.multinomial.logpmf(c, c.sum(), c / c.sum())
            - scipy.stats.multinomial.logpmf(c, c.sum(), p)
        )
        for c in counts
    ]
    with np.errstate(all="raise"):
        np.testing.assert_allclose(multinomial_deviance(counts, p), wanted, rtol=1e-9)


def test_deviance_explained_is_one_for_the_observed_and_zero_for_the_mean_profile() -> None:
    rates, counts, _ = tissue(100)
    profile = rates.mean(axis=0)
    observed = counts.values / counts.totals[:, None]
    assert deviance_explained(counts.values, observed + 1e-12, profile) == pytest.approx(
        1, abs=1e-5
    )
    assert deviance_explained(counts.values, profile, profile) == pytest.approx(0, abs=1e-12)
    assert 0.2 < deviance_explained(counts.values, rates, profile) < 0.98
    assert deviance_explained(counts.values, np.roll(rates, 1, axis=1), profile) < 0
    assert np.isnan(deviance_explained(counts.values[:, :1], rates[:, :1] * 0 + 1, np.ones(1)))


def test_proportions_invert_the_label_scale() -> None:
    scale = LabelScale(smoothing=1)
    counts = np.array([[30.0, 10, 60], [1, 1, 2]])
    found = proportions_from_labels(scale.normalize_and_log(counts), scale)
    np.testing.assert_allclose(found, counts / counts.sum(axis=1, keepdims=True), rtol=1e-5)
    extreme = proportions_from_labels(np.array([[-3.0, 0.0, 400.0]]), scale)
    assert (extreme > 0).all() and extreme.sum() == pytest.approx(1)


# --- thinning ----------------------------------------------------------------------------


def thick_section() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    data = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(40, size=(60, 5)).astype(np.float32)),
        obs=pd.DataFrame(index=[str(i) for i in range(60)]),
        var=pd.DataFrame(index=list("ABCDE")),
    )
    data.uns["section"] = "S"
    return data


def test_thinning_reaches_the_median_total_and_keeps_the_original() -> None:
    data, panel = thick_section(), Panel.from_symbols(["A", "C", "Z"])
    before = data.X.toarray().copy()
    thinned = thin_section(data, panel, 12)
    totals = thinned[:, ["A", "C"]].X.toarray().sum(axis=1)
    assert np.median(totals) == pytest.approx(12, abs=1.5)
    np.testing.assert_array_equal(data.X.toarray(), before)
    assert (thinned.X.toarray() <= before).all() and (thinned.X.toarray() % 1 == 0).all()
    assert thinned.uns["thinned"]["fraction"] == pytest.approx(
        12 / np.median(before[:, [0, 2]].sum(1))
    )
    np.testing.assert_array_equal(thin_section(data, panel, 12).X.toarray(), thinned.X.toarray())
    assert (thin_section(data, panel, 12, seed=1).X.toarray() != thinned.X.toarray()).any()


def test_a_section_cannot_be_thinned_to_more_than_it_has() -> None:
    panel = Panel.from_symbols(["A"])
    for wanted in (1000, 0, -1):
        with pytest.raises(SpotsError, match="S has a median of"):
            thin_section(thick_section(), panel, wanted)
    logs = thick_section()
    logs.X = logs.X / 3.7
    with pytest.raises(SpotsError, match="raw counts"):
        thin_section(logs, panel, 5)


def test_thinned_counts_are_binomial() -> None:
    kept = thin_counts(np.full(20_000, 10.0), 0.3, np.random.default_rng(0))
    assert kept.mean() == pytest.approx(3, abs=0.05)
    assert kept.var() == pytest.approx(2.1, abs=0.1)
