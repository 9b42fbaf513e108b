"""Two or three genes in added colours: nothing is lost, and white means all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.quality.color_mix import MIX_COLORS, mix_genes


@pytest.mark.parametrize("n_genes", MIX_COLORS)
def test_ends_of_the_limits(n_genes) -> None:
    limits = [(1.0, 2.0 + i) for i in range(n_genes)]
    low, high = np.array(limits).T
    black, white = mix_genes(np.array([low, high]), limits)
    assert black.tolist() == [0, 0, 0, 255] and white.tolist() == [255] * 4
    for i, color in enumerate(MIX_COLORS[n_genes]):
        one = low.copy()
        one[i] = high[i] + 5  # beyond the limit: its full colour
        assert np.abs(mix_genes(one[None], limits)[0, :3] / 255 - color.rgb).max() < 0.003
    nothing = low.copy()
    nothing[0] = np.nan
    assert mix_genes(nothing[None], limits).tolist() == [[0, 0, 0, 0]]


@given(st.integers(0, 2**20), st.sampled_from(sorted(MIX_COLORS)))
def test_more_of_a_gene_is_never_darker(seed, n_genes) -> None:
    random = np.random.default_rng(seed)
    values, limits = random.normal(size=(20, n_genes)), [(-1.0, 1.0)] * n_genes
    rgba = mix_genes(values, limits).astype(int)
    more = values.copy()
    more[:, random.integers(n_genes)] += random.uniform(0, 2, 20)
    assert (mix_genes(more, limits).astype(int) - rgba)[:, :3].min() >= 0
    order = random.permutation(20)
    assert (mix_genes(values[order], limits) == rgba[order]).all()
