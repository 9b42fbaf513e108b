"""Maps like a gene's map, tiles like a tile: the formulas, and that order follows them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.errors import SpotsError
from napari_dkan.quality.find_similar import (
    MIN_TILES,
    compare_tiles,
    correlate_with_gene,
    rank_tiles,
)

SEEDS = st.integers(0, 2**20)


@given(SEEDS, st.integers(MIN_TILES, 60), st.integers(3, 12))
def test_correlations_are_those_of_numpy(seed, n_tiles, n_genes) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n_tiles, n_genes)) * random.uniform(0.5, 3, n_genes) + 2
    values[:, -1] = 1.5  # constant
    found = correlate_with_gene(values, values[:, 0])
    assert found.n_tiles == n_tiles and np.isnan(found.r[-1]) and found.r[0] == pytest.approx(1)
    expected = [np.corrcoef(values[:, 0], values[:, i])[0, 1] for i in range(n_genes - 1)]
    assert np.allclose(found.r[:-1], expected)
    # The partial correlation, by the formula of three correlations.
    z = (values[:, :-1] - values[:, :-1].mean(axis=0)) / values[:, :-1].std(axis=0)
    m = np.array([np.corrcoef(z.mean(axis=1), z[:, i])[0, 1] for i in range(n_genes - 1)])
    partial = (found.r[:-1] - m[0] * m) / np.sqrt((1 - m[0] ** 2) * (1 - m**2))
    assert np.allclose(found.r_beyond_mean[:-1], partial, atol=1e-6)
    # Scale and level of a gene, and the order of tiles, are no matter.
    order = random.permutation(n_tiles)
    again = correlate_with_gene(values[order] * 3 - 1, values[order, 0] * 0.2)
    assert np.allclose(again.r[:-1], found.r[:-1])
    assert np.allclose(again.r_beyond_mean[:-1], found.r_beyond_mean[:-1], atol=1e-6)


def test_what_all_genes_share_is_no_similarity() -> None:
    """Two genes that only follow the density correlate, but not beyond the mean."""
    random = np.random.default_rng(0)
    density = random.normal(size=400)
    values = density[:, None] + 0.5 * random.normal(size=(400, 60))
    program = random.normal(size=400)
    values[:, :2] += program[:, None]
    found = correlate_with_gene(values, values[:, 0])
    assert found.r[2:].mean() > 0.4 and found.r_beyond_mean[1] > 0.7
    assert np.abs(found.r_beyond_mean[2:]).mean() < 0.1


@given(SEEDS, st.integers(MIN_TILES, 50), st.integers(2, 30))
def test_tiles_are_compared_by_direction(seed, n_tiles, dim) -> None:
    random = np.random.default_rng(seed)
    tokens = random.normal(size=(n_tiles, dim)) + 0.5
    cosines = compare_tiles(tokens, tokens[3])
    assert cosines[3] == pytest.approx(1) == cosines.max() and cosines.min() >= -1
    lengths = random.uniform(0.5, 3, (n_tiles, 1))
    assert np.allclose(compare_tiles(lengths * tokens, tokens[3]), cosines)
    assert np.allclose(compare_tiles(tokens[:MIN_TILES], tokens[3]), cosines[:MIN_TILES])

    xy = np.stack([np.arange(n_tiles) * 10.0, np.zeros(n_tiles)], axis=1)
    rows = rank_tiles(cosines, xy, xy[3], 10.0, 5)
    assert len(rows) == 5 and 3 not in rows
    left = np.setdiff1d(np.arange(n_tiles), [*rows, 3])
    assert (np.diff(cosines[rows]) <= 0).all()
    assert not len(left) or cosines[left].max() <= cosines[rows].min()


def test_too_little_is_said() -> None:
    few = np.random.default_rng(0).normal(size=(MIN_TILES - 1, 4))
    with pytest.raises(SpotsError, match="too few"):
        correlate_with_gene(few, few[:, 0])
    with pytest.raises(SpotsError, match="too few"):
        compare_tiles(few, few[0])
    with pytest.raises(SpotsError, match="not of the same model"):
        compare_tiles(np.ones((20, 4)), np.ones(5))
    unknown = np.vstack([few, np.full((30, 4), np.nan)])
    with pytest.raises(SpotsError, match=f"{MIN_TILES - 1} tiles"):
        correlate_with_gene(unknown, unknown[:, 0])
