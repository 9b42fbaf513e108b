"""One damaged place of a slide: told apart from a slide that cannot be read, and the rest reads."""

from __future__ import annotations

import shutil
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dkan.errors import DamagedTileError, SlideError
from napari_dkan.slide import open_slide
from napari_dkan.slide.tissue import find_tissue

from .slide_files import halves, ome_zarr, picture, pyramid_tiff, tiff


def spoil(path, tile, page=0, keep=0):
    """Zeros in place of a tile, after its first `keep` bytes."""
    with tifffile.TiffFile(path) as tif:
        at, count = tif.pages[page].dataoffsets[tile], tif.pages[page].databytecounts[tile]
    data = bytearray(path.read_bytes())
    data[at + keep : at + count] = bytes(count - keep)
    path.write_bytes(data)
    return path


def test_only_the_damaged_region_raises(tmp_path):
    levels = halves(picture(500, 701), 3)
    path = spoil(pyramid_tiff(tmp_path / "a.tif", levels, subifds=False), tile=12)
    with open_slide(path) as slide:
        for _ in range(2):  # an error is not kept, nor does it spoil what is read after it
            with pytest.raises(
                DamagedTileError, match=r"a\.tif.*between \(100, 110\) and \(150, 140\)"
            ):
                slide.read_region(100, 110, 50, 30)
            with pytest.raises(DamagedTileError, match="copy or export it again"):
                slide.read_patch(120.3, 120.7, 40, 40)
            assert (slide.read_region(128, 64, 300, 200) == levels[0][64:264, 128:428]).all()
        for index in (1, 2):  # stored levels do not come from the damaged one
            assert (np.asarray(slide.pyramid()[index]) == levels[index]).all()


def test_message_is_short_if_the_library_quotes_the_file(tmp_path):
    path = pyramid_tiff(tmp_path / "a.tif", halves(picture(500, 701), 1), subifds=False)
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        tag, offsets = tags["Compression"].offset, tags["TileOffsets"]
        tiles, at = offsets.count, offsets.valueoffset
    data = bytearray(path.read_bytes())
    data[tag + 2 : tag + 12] = struct.pack("<HII", 4, tiles, at)  # a compression for each tile
    path.write_bytes(data)
    with (
        pytest.raises(SlideError, match=r"a\.tif.*copy or export it again") as refused,
        open_slide(path) as slide,
    ):
        slide.read_region(0, 0, 50, 30)
    assert len(str(refused.value)) < 350, refused.value


def test_damage_of_a_level_is_reported_in_level_0_px(tmp_path):
    levels = halves(picture(500, 701), 3)
    path = spoil(pyramid_tiff(tmp_path / "a.tif", levels, subifds=False), tile=0, page=2)
    with (
        open_slide(path) as slide,
        pytest.raises(DamagedTileError, match=r"\(40, 80\) and \(80, 120\)"),
    ):
        slide.read_region(10, 20, 10, 10, 2)


def test_truncated_jpeg_tile_is_reported_as_damage(tmp_path):
    options = {"tile": (64, 64), "compression": "jpeg"}
    path = tiff(tmp_path / "a.tif", picture(), **options)
    with open_slide(path) as slide:
        whole = slide.read_region(0, 0, 317, 203)
    spoil(path, tile=0, keep=1200)
    with open_slide(path) as slide:
        with pytest.raises(DamagedTileError, match="cut short"):
            slide.read_region(0, 0, 10, 10)
        assert (slide.read_region(64, 0, 253, 203) == whole[:, 64:]).all()


def test_damage_in_a_zarr_chunk(tmp_path):
    pixels = picture(700, 1200)
    path = ome_zarr(tmp_path / "a.zarr", [pixels], version="0.5")
    (path / "0" / "c" / "0" / "0" / "0").write_bytes(b"no chunk")
    with open_slide(path) as slide:
        with pytest.raises(DamagedTileError, match=r"a\.zarr is damaged"):
            slide.read_region(0, 0, 10, 10)
        assert (slide.read_region(600, 0, 600, 700) == pixels[:, 600:]).all()


def test_openslide_reads_on_after_damage(data_dir, tmp_path):
    """OpenSlide refuses everything after its first error; our reader of it must not."""
    pytest.importorskip("openslide")
    from napari_dkan.slide.slide import Slide
    from napari_dkan.slide.sources.openslide_source import OpenSlideSource

    path = tmp_path / "a.svs"
    shutil.copyfile(data_dir / "wsi" / "CMU-1-Small-Region.svs", path)
    with open_slide(path) as slide:
        whole = slide.read_region(0, 0, slide.width, slide.height)
    spoil(path, tile=13)
    with Slide(path, OpenSlideSource(path)) as slide:

        def read(x):
            try:
                return (slide.read_region(x, 300, 100, 100) == whole[300:400, x : x + 100]).all()
            except DamagedTileError:
                return None

        with ThreadPoolExecutor(4) as pool:
            columns = list(pool.map(read, list(range(0, 2000, 60)) * 3))
    assert columns.count(True) > 60 and None in columns and False not in columns


def test_tissue_is_found_around_damage(data_dir, tmp_path):
    path = tmp_path / "a.tif"
    shutil.copyfile(data_dir / "her2st" / "crop" / "C3_crop_pyramid.tif", path)
    with open_slide(path) as slide:
        before = find_tissue(slide, 0.688)
    spoil(path, tile=0, page=3)  # the level that the overview is made of: 320 px, tiles of 256
    with open_slide(path) as slide:
        mask = find_tissue(slide, 0.688).mask
    assert mask.shape == before.mask.shape
    assert 0 < mask.sum() < before.mask.sum()
    for tile in range(4):
        spoil(path, tile, page=3)
    with open_slide(path) as slide, pytest.raises(DamagedTileError):
        find_tissue(slide, 0.688)


def test_errors_of_the_whole_slide_are_not_damaged_tiles(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[5000:9000] = bytes(4000)
    (tmp_path / "a.png").write_bytes(data)
    closed = open_slide(tiff(tmp_path / "closed.tif", picture(), tile=(64, 64)))
    closed.close()
    gone = open_slide(tiff(tmp_path / "gone.tif", picture(), tile=(64, 64)))
    gone.path.unlink()
    for slide in (open_slide(tmp_path / "a.png"), closed, gone):
        with pytest.raises(SlideError) as caught:
            slide.read_region(0, 0, 50, 50)
        assert not isinstance(caught.value, DamagedTileError)
