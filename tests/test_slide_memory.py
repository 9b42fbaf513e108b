"""The memory of decoded tiles stays bounded, however much of a slide is read."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from napari_dkan.slide.sources import downsampled_source
from napari_dkan.slide.sources.tiff_source import TiffSource
from napari_dkan.slide.sources.tile_cache import CACHE_BYTES_RANGE, TileCache, choose_cache_capacity

from .slide_files import picture, tiff


def test_cache_stores_no_errors_and_stays_below_its_capacity():
    cache = TileCache(10 * 300)

    def fail():
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("a", fail)
    made = []
    for key in (*range(40), 39, 38, 0):
        cache.get(key, lambda key=key: made.append(key) or np.zeros((10, 10, 3), np.uint8))
    assert made == [*range(40), 0]
    assert cache.nbytes == 10 * 300


@pytest.mark.parametrize(("width", "capacity"), [(9_000, 128), (100_000, 183), (400_000, 256)])
def test_capacity_follows_the_slide_within_bounds(width, capacity):
    """Two rows of tiles and a half: reading row after row decodes each tile once."""
    assert choose_cache_capacity(width, 256) // 2**20 == capacity
    assert CACHE_BYTES_RANGE[0] <= choose_cache_capacity(width, 256) <= CACHE_BYTES_RANGE[1]


def test_computed_levels_stay_bounded_and_coarse_ones_are_cached_whole(tmp_path, monkeypatch):
    capacity = 3 * 2**20
    monkeypatch.setattr(downsampled_source, "CACHE_BYTES", capacity)
    pixels = picture(4200, 9000)
    path = tiff(tmp_path / "a.tif", pixels, tile=(512, 512), compression="deflate")
    source = TiffSource(path)
    reduced = downsampled_source.add_coarse_levels(source)

    def read_level(index):
        level = reduced.levels[index]
        return reduced.read(index, 0, 0, level.width, level.height)

    with closing(reduced):
        levels = [read_level(index) for index in range(1, len(reduced.levels))]
        assert [pixels.shape[1] for pixels in levels] == [4500, 2250, 1125, 563]
        sizes = [cache.nbytes for cache in set(reduced.caches)]
        assert max(sizes) <= capacity and sum(sizes) > levels[-1].nbytes + levels[-2].nbytes
        monkeypatch.setattr(source, "read", lambda *region: pytest.fail("read again"))
        assert (read_level(len(reduced.levels) - 1) == levels[-1]).all()
