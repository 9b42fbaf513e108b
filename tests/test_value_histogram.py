"""Histogram of a gene over tiles: nothing is lost, and marks lie where their values do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_dkan.quality.value_histogram import (
    MAX_BINS,
    MIN_BINS,
    build_histogram,
    measure_spread,
    share_below,
)

VALUES = arrays(
    np.float32,
    st.integers(0, 200),
    elements=st.floats(-3, 8, width=32) | st.just(float("nan")),
)


@given(VALUES)
def test_every_finite_value_is_in_one_bin(values) -> None:
    finite = values[np.isfinite(values)].astype(np.float64)
    found = build_histogram(values)
    if not len(finite):
        assert found is None
        return
    assert found is not None and found.n_tiles == len(finite)
    assert MIN_BINS <= len(found.counts) <= MAX_BINS and len(found.edges) == len(found.counts) + 1
    assert found.edges[0] <= finite.min() and finite.max() <= found.edges[-1]
    up_to = np.cumsum(found.counts)
    for count, edge in zip(up_to[:-1], found.edges[1:-1], strict=True):
        # A value on an edge may fall on either side by rounding.
        assert (finite < edge - 1e-6).sum() <= count <= (finite < edge + 1e-6).sum()


@given(VALUES)
def test_heights_are_logarithms(values) -> None:
    found = build_histogram(values)
    if found is None:
        return
    heights = found.log_heights()
    assert heights.max() == 1 and (heights[found.counts == 0] == 0).all()
    ratio = np.log(1 + found.counts) / np.log(1 + found.counts.max())
    assert np.allclose(heights, ratio)


@given(VALUES, st.floats(-3, 8))
def test_spread_and_share(values, value) -> None:
    finite, spread = values[np.isfinite(values)], measure_spread(values)
    if not len(finite):
        assert spread is None and np.isnan(share_below(values, value))
        return
    assert spread is not None and spread.n_tiles == len(finite)
    assert finite.min() <= spread.low <= spread.median <= spread.high <= finite.max()
    assert (finite <= spread.median + 1e-6).mean() >= 0.5 <= (finite >= spread.median - 1e-6).mean()
    share = share_below(values, value)
    assert share * len(finite) == (finite < value).sum()
    assert share_below(values, -4) == 0 and share_below(values, 9) == 1
