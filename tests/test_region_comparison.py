"""Regions and their tiles, statistics of regions, and the comparison of two regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu
from shapely import Point, box
from shapely.geometry import MultiPolygon

from napari_dkan.errors import SpotsError
from napari_dkan.quality import region_comparison
from napari_dkan.quality.region_comparison import adjust_p_values, compare_regions
from napari_dkan.quality.region_statistics import (
    separate_regions,
    summarize_regions,
    tiles_in_region,
)
from napari_dkan.quality.spatial_correlation import fit_spatial_correlation

PITCH = 200.0
GENES = tuple(f"g{i}" for i in range(12))


def grid(side: int) -> np.ndarray:
    return (np.stack(np.meshgrid(range(side), range(side)), axis=-1).reshape(-1, 2) + 0.5) * PITCH


def smooth(side: int, length: float, seed: int, n_genes: int = len(GENES)) -> np.ndarray:
    margin = int(4 * length) + 1
    wide = np.random.default_rng(seed).normal(size=(n_genes, *(2 * [side + 2 * margin])))
    field = gaussian_filter(wide, (0, length, length))[:, margin:-margin, margin:-margin]
    return (field / field.std()).reshape(n_genes, -1).T


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    monkeypatch.setattr(region_comparison, "N_PERMUTATIONS", 499)


# ---- tiles of regions ------------------------------------------------------------------


def test_holes_and_parts_count():
    xy = grid(10)
    ring = box(0, 0, 1000, 1000).difference(box(400, 400, 800, 800))
    both = MultiPolygon([*[ring], box(1600, 1600, 2000, 2000)])
    inside = tiles_in_region(both, xy, PITCH)
    assert inside.sum() == 25 - 4 + 4
    assert not inside[((xy > 400) & (xy < 800)).all(axis=1)].any()
    found = summarize_regions([both, ring], xy, xy, PITCH, 0.5)
    assert found.n_tiles.tolist() == [25, 21]
    assert found.area_mm2 == pytest.approx([both.area * 0.25e-6, ring.area * 0.25e-6])
    np.testing.assert_allclose(found.mean[1], xy[tiles_in_region(ring, xy, PITCH)].mean(axis=0))
    np.testing.assert_allclose(found.median[0], np.median(xy[inside], axis=0))


def test_small_region_has_the_tile_below_it():
    xy = grid(4)
    small = Point(310, 95).buffer(8)
    assert np.flatnonzero(tiles_in_region(small, xy, PITCH)).tolist() == [1]
    assert not tiles_in_region(Point(9000, 95).buffer(8), xy, PITCH).any()
    nothing = summarize_regions([Point(9000, 95).buffer(8)], xy, xy, PITCH, 0.5)
    assert nothing.n_tiles[0] == 0 and np.isnan(nothing.mean).all()


def test_share_of_unreliable_tiles_and_missing_values():
    xy = grid(4)
    values = np.arange(32.0).reshape(16, 2)
    values[0, 0] = np.nan
    left = box(0, 0, 400, 800)
    unreliable = xy[:, 1] < 200
    found = summarize_regions([left], values, xy, PITCH, 1.0, unreliable)
    assert found.unreliable[0] == 0.25
    assert found.mean[0, 0] == pytest.approx(np.nanmean(values[xy[:, 0] < 400, 0]))
    assert np.isnan(summarize_regions([left], values, xy, PITCH, 1.0).unreliable[0])


def test_nest_belongs_to_the_smaller_region():
    xy = grid(10)
    tumour, nest = box(0, 0, 1600, 1600), box(400, 400, 800, 800)
    in_a, in_b, n_both = separate_regions([tumour], [nest], xy, PITCH)
    assert (in_a.sum(), in_b.sum(), n_both) == (60, 4, 4)
    in_b, in_a, _ = separate_regions([nest], [tumour], xy, PITCH)
    assert (in_a.sum(), in_b.sum()) == (60, 4)
    in_a, rest, n_both = separate_regions([tumour, nest], None, xy, PITCH)
    assert (in_a.sum(), rest.sum(), n_both) == (64, 36, 0)
    same = separate_regions([nest], [nest], xy, PITCH)
    assert (same[0].sum(), same[1].sum(), same[2]) == (0, 0, 4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 1800)] * 2, *[st.integers(50, 900)] * 2), max_size=4),
    st.lists(st.tuples(*[st.integers(0, 1800)] * 2, *[st.integers(50, 900)] * 2), max_size=4),
)
def test_no_tile_is_in_both(first, second):
    xy = grid(9)
    a, b = ([box(x, y, x + w, y + h) for x, y, w, h in rows] for rows in (first, second))
    in_a, in_b, n_both = separate_regions(a, b, xy, PITCH)
    assert not (in_a & in_b).any()
    of_a, of_b = (
        np.any([tiles_in_region(r, xy, PITCH) for r in rows] or [np.zeros(81, bool)], axis=0)
        for rows in (a, b)
    )
    assert not (in_a & ~of_a).any() and not (in_b & ~of_b).any()
    assert n_both == (of_a & of_b).sum()


# ---- A and B ---------------------------------------------------------------------------


def assert_same(first, second, sign: int = 1):
    np.testing.assert_array_equal(first.p_value, second.p_value)
    np.testing.assert_allclose(first.difference, sign * second.difference, atol=1e-12)
    np.testing.assert_allclose(first.effect, sign * second.effect, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_tiles_and_names_of_regions_change_nothing(seed):
    side = 16
    xy, values = grid(side), smooth(side, 0.8, seed)
    a = (xy[:, 0] + xy[:, 1]) < 16 * PITCH
    b = (xy[:, 0] > 10 * PITCH) & ~a
    found = compare_regions(values, GENES, xy, a, b)
    order = np.random.default_rng(seed).permutation(len(xy))
    assert_same(found, compare_regions(values[order], GENES, xy[order], a[order], b[order]))
    assert_same(found, compare_regions(values, GENES, xy, b, a), -1)
    other = compare_regions(values + 7, GENES, xy, a, b)
    np.testing.assert_array_equal(found.p_value, other.p_value)  # no origin of the scale


def test_equal_regions_do_not_differ():
    """The right half mirrors the left one."""
    side = 24
    xy = grid(side)
    values = smooth(side, 1.0, 3).reshape(side, side, -1)
    values[:, side // 2 :] = values[:, : side // 2][:, ::-1]
    left = xy[:, 0] < side / 2 * PITCH
    found = compare_regions(values.reshape(side**2, -1), GENES, xy, left, ~left)
    np.testing.assert_allclose(found.difference, 0, atol=1e-12)
    np.testing.assert_allclose(found.superiority, 0.5)
    assert (found.p_value > 0.95).all() and (found.p_adjusted > 0.95).all()


def test_planted_difference_is_found():
    side = 30
    xy, values = grid(side), smooth(side, 0.5, 4)
    glands = (np.floor(xy / (5 * PITCH)).sum(axis=1) % 2) == 0  # a chessboard
    values[glands, 2] += 1.0
    values[~glands, 5] += 1.0
    found = compare_regions(values, GENES, xy, glands, ~glands)
    assert set(np.flatnonzero(found.p_adjusted < 0.05)) == {2, 5}
    assert found.difference[2] == pytest.approx(1.0, abs=0.3) and found.difference[5] < -0.7
    assert found.effect[2] == pytest.approx(found.difference[2], abs=0.2)  # SD of about 1
    assert found.superiority[2] > 0.7 and found.superiority[5] < 0.3
    assert found.n_a + found.n_b == len(xy) and found.is_tested


def test_smooth_noise_gives_no_false_positives_where_naive_tests_do():
    """240 genes on 20 sections; an exact test has 12 below 0.05, three SDs more are 22."""
    side = 26
    xy = grid(side)
    left = xy[:, 0] < side / 2 * PITCH
    naive = blocks = total = 0
    for seed in range(20):
        values = smooth(side, 1.5, seed)
        blocks += int((compare_regions(values, GENES, xy, left, ~left).p_value < 0.05).sum())
        naive += int((mannwhitneyu(values[left], values[~left], axis=0).pvalue < 0.05).sum())
        total += len(GENES)
    assert naive > 0.4 * total
    assert blocks <= 22


def test_few_blocks_are_described_and_not_tested():
    xy = grid(12)
    spot = (xy < 3 * PITCH).all(axis=1)
    found = compare_regions(smooth(12, 1, 1), GENES, xy, spot, ~spot)
    assert not found.is_tested and np.isnan(found.p_value).all()
    assert np.isfinite(found.effect).all() and np.isnan(found.p_adjusted).all()


def test_constant_gene_has_no_difference():
    xy, values = grid(24), smooth(24, 0.5, 2)
    values[:, 0] = 1.7
    left = xy[:, 0] < 12 * PITCH
    found = compare_regions(values, GENES, xy, left, ~left)
    assert found.p_value[0] == 1 and found.difference[0] == 0 and np.isnan(found.effect[0])


def test_bad_input_is_named():
    xy, values = grid(6), smooth(6, 0.5, 2)
    left = xy[:, 0] < 3 * PITCH
    with pytest.raises(SpotsError, match="no predicted tile"):
        compare_regions(values, GENES, xy, left, np.zeros(36, bool))
    with pytest.raises(SpotsError, match="in both"):
        compare_regions(values, GENES, xy, left, left)
    values[0, 3] = np.nan
    with pytest.raises(SpotsError, match="no value"):
        compare_regions(values, GENES, xy, left, ~left)


def test_adjusted_p_values():
    """Benjamini and Hochberg by hand; unknown ones do not count."""
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    expected = [0.04, np.nan, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5]
    np.testing.assert_allclose(adjust_p_values(p), expected)


def test_length_of_the_correlation_is_found():
    """Noise smoothed by L is correlated by exp(-(d / 2L)^2)."""
    side = 30
    xy = grid(side)
    left = xy[:, 0] < side / 2 * PITCH
    for length in (1.0, 2.0):
        found = fit_spatial_correlation(smooth(side, length, 5, 60), xy, left, PITCH)
        reach = np.array([1, 2, 3, 4]) * PITCH
        expected = np.exp(-((reach / (2 * length * PITCH)) ** 2))
        np.testing.assert_allclose(found.between(reach), expected, atol=0.12)
    noise = np.random.default_rng(0).normal(size=(side**2, 60))
    assert fit_spatial_correlation(noise, xy, left, PITCH).between(np.array([PITCH]))[0] < 0.05
