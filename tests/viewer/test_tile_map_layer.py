"""Smooth maps: interpolated between the centres of tiles, without tiles that do not exist."""

from __future__ import annotations

import numpy as np

from napari_dkan.viewer.layers.tile_map_layer import TileMapLayer, find_factor, interpolate_tiles
from napari_dkan.viewer.layers.value_layers import color_grid


def test_centres_keep_their_values_and_gaps_stay_empty():
    tiles = np.array([[0, 1, np.nan], [2, 5, np.nan], [np.nan, np.nan, 3]], np.float32)
    raster = interpolate_tiles(tiles, 5)
    np.testing.assert_array_equal(raster[2::5, 2::5], tiles)
    known = np.repeat(np.repeat(np.isfinite(tiles), 5, axis=0), 5, axis=1)
    np.testing.assert_array_equal(np.isfinite(raster), known)
    np.testing.assert_allclose(raster[2, 2:8], np.linspace(0, 1, 6), atol=1e-6)
    np.testing.assert_array_equal(raster[2, 7:10], 1)  # next to a gap the tile alone counts
    np.testing.assert_array_equal(raster[2, :3], 0)  # beyond the outer centres, too
    assert interpolate_tiles(tiles, 1) is tiles


def test_large_maps_are_drawn_with_fewer_pixels_and_the_largest_in_blocks():
    assert find_factor(np.empty((20, 20), np.float32)) == 9
    assert find_factor(np.empty((150, 150), np.float32)) == 5
    assert find_factor(np.empty((400, 500), np.float32)) == 3  # 100,000 tiles and their gaps
    assert find_factor(np.empty((2000, 2000), np.float32)) == 1


def test_another_gene_changes_the_values_of_the_raster_and_a_gap_less_its_weights():
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 6, 8)).astype(np.float32)
    first[1:3, 2:5] = second[1:3, 2:5] = np.nan
    layer = TileMapLayer(np.full((6, 8), np.nan, np.float32), scale=(10, 10))
    for smooth in (True, False):
        layer.set_tiles(first, smooth)
        raster, kept = layer.data, first.copy()
        layer.set_tiles(second, smooth)
        assert layer.data is raster  # one texture whose data change
        np.testing.assert_array_equal(layer.data, interpolate_tiles(second, layer.factor))
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_allclose(layer.tile_scale, 10)
    filled = np.nan_to_num(second)
    layer.set_tiles(filled, True)
    np.testing.assert_array_equal(layer.data, interpolate_tiles(filled, layer.factor))


def test_limits_beyond_their_range_are_announced_once():
    layer = TileMapLayer(np.ones((2, 2), np.float32), contrast_limits=(0, 1))
    told: list[tuple[float, ...]] = []
    layer.events.contrast_limits.connect(lambda: told.append(tuple(layer.contrast_limits)))
    color_grid(layer, (-3.0, 5.0), layer.colormap)
    assert told == [(-3.0, 5.0)] and tuple(layer.contrast_limits_range) == (-3, 5)
    color_grid(layer, (-3.0, 5.0), layer.colormap)
    assert len(told) == 1
