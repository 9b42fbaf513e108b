"""Smooth maps: interpolated between the centres of tiles, without tiles that do not exist."""

from __future__ import annotations

import numpy as np

from napari_dkan.viewer.layers.tile_map_layer import find_factor, interpolate_tiles


def test_centres_keep_their_values_and_gaps_stay_empty():
    tiles = np.array([[0, 1, np.nan], [2, 5, np.nan], [np.nan, np.nan, 3]], np.float32)
    raster = interpolate_tiles(tiles, 5)
    np.testing.assert_array_equal(raster[2::5, 2::5], tiles)
    known = np.repeat(np.repeat(np.isfinite(tiles), 5, axis=0), 5, axis=1)
    np.testing.assert_array_equal(np.isfinite(raster), known)
    np.testing.assert_allclose(raster[2, 2:8], np.linspace(0, 1, 6), atol=1e-6)
    np.testing.assert_array_equal(raster[2, 7:10], 1)  # next to a gap the tile alone counts
    assert interpolate_tiles(tiles, 1) is tiles


def test_large_maps_are_drawn_with_fewer_pixels():
    assert find_factor(np.empty((20, 20), np.float32)) == 9
    assert find_factor(np.empty((150, 150), np.float32)) == 5
    assert find_factor(np.empty((2000, 2000), np.float32)) == 1
