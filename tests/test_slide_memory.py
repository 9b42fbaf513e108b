"""What is kept of a slide stays within bounds, however much of it is read."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dkan.slide import open_slide
from napari_dkan.slide.sources import downsampled_source as reduced
from napari_dkan.slide.sources.tile_cache import CACHE_BYTES_RANGE, TileCache, choose_cache_capacity

from .slide_files import picture, tiff


def test_the_cache_keeps_no_errors_and_no_more_than_its_bytes():
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
    """Two rows of tiles and some more: what is read row after row is decoded once."""
    assert choose_cache_capacity(width, 256) // 2**20 == capacity
    assert CACHE_BYTES_RANGE[0] <= choose_cache_capacity(width, 256) <= CACHE_BYTES_RANGE[1]


def test_made_levels_stay_bounded_and_the_coarse_ones_whole(tmp_path, monkeypatch):
    kept = 3 * 2**20
    monkeypatch.setattr(reduced, "CACHE_BYTES", kept)
    pixels = picture(4200, 9000)
    path = tiff(tmp_path / "a.tif", pixels, tile=(512, 512), compression="deflate")
    with open_slide(path) as slide:
        caches = set(slide._source._caches)
        levels = [np.asarray(level) for level in slide.pyramid()[1:]]
        assert [lv.shape[1] for lv in levels] == [4500, 2250, 1125, 563]
        held = [cache.nbytes for cache in caches]
        assert max(held) <= kept and sum(held) > levels[-1].nbytes + levels[-2].nbytes
        source = slide._source._source
        monkeypatch.setattr(source, "read", lambda *place: pytest.fail("read again"))
        assert (np.asarray(slide.pyramid()[-1]) == levels[-1]).all()
