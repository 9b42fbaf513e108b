"""Squares are what the plain way gives, bit for bit, from every kind of slide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_dkan.slide import open_slide

from .slide_files import ome_zarr, picture, tiff

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide


def plain_square(slide, levels, x, y, side, px):
    """The square from whole levels, by Pillow: no caches, no chunks, no short cuts."""
    index = slide.best_level_for_downsample(side / px)
    factor = slide.levels[index].downsample
    left, top, side = (x - side / 2) / factor, (y - side / 2) / factor, side / factor
    pixels, margin = levels[index], math.ceil(max(side / px, 1.0))
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    x1, y1 = math.ceil(left + side) + margin, math.ceil(top + side) + margin
    around = np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)
    rows, columns = np.arange(y0, y1), np.arange(x0, x1)
    rows = rows[(rows >= 0) & (rows < pixels.shape[0])]
    columns = columns[(columns >= 0) & (columns < pixels.shape[1])]
    around[np.ix_(rows - y0, columns - x0)] = pixels[np.ix_(rows, columns)]
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    image = Image.fromarray(around).resize((px, px), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


@pytest.fixture(params=["section", "crop", "svs", "svs by openslide", "drawn", "zarr"])
def slide(request, tmp_path):
    data = request.param not in ("drawn", "zarr") and request.getfixturevalue("data_dir")
    if request.param == "section":
        opened = open_slide(next((data / "her2st" / "ST-imgs" / "C" / "C3").glob("*.jpg")))
    elif request.param == "crop":
        opened = open_slide(data / "her2st" / "crop" / "C3_crop_pyramid.tif")
    elif request.param == "drawn":  # flat tiles, so that its lower levels are made here
        options = {"tile": (128, 64), "compression": "deflate"}
        opened = open_slide(tiff(tmp_path / "a.tif", picture(900, 4300), **options))
    elif request.param == "zarr":
        opened = open_slide(ome_zarr(tmp_path / "a.zarr", [picture(700, 900)], version="0.5"))
    else:
        path = data / "wsi" / "CMU-1-Small-Region.svs"
        opened = open_slide(path)
        if "openslide" in request.param:
            pytest.importorskip("openslide")
            from napari_dkan.slide.slide import Slide
            from napari_dkan.slide.sources.openslide_source import OpenSlideSource

            opened = Slide(path, OpenSlideSource(path))
    with opened:
        yield opened


def test_patches_equal_a_plain_implementation(slide: Slide):
    levels = [np.asarray(level) for level in slide.pyramid()]
    rng = np.random.default_rng(4)
    for _ in range(60):
        x, y = rng.uniform([-50, -50], [slide.width + 50, slide.height + 50])
        side = rng.choice([56.0, 112.5, 224.0, 224.36, 610.7])
        px = int(rng.choice([56, 112, 224]))
        square = slide.read_patch(x, y, side, px)
        assert (square == plain_square(slide, levels, x, y, side, px)).all()
        square[0, 0] = 7  # whoever asked may write into it
    x, y = 300.0, 260.0
    assert (slide.read_patch(x, y, 56, 56) == levels[0][232:288, 272:328]).all()
