"""Slides: the pixels that were asked for, from every layout, from many threads, or a plain no."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dkan.errors import SlideError
from napari_dkan.slide import PixelSize, open_slide

from .slide_files import LOSSLESS, halves, ome_zarr, picture, pyramid_tiff, tiff

if TYPE_CHECKING:
    from napari_dkan.inference.patch_features.patch_loader import PatchPixels


@pytest.fixture(scope="module", params=LOSSLESS)
def written(request, tmp_path_factory):
    path, seen = LOSSLESS[request.param](tmp_path_factory.mktemp("slide"), picture())
    with open_slide(path) as slide:
        yield slide, seen


def cut(pixels, x, y, width, height):
    """The same region by plain means: a white frame around the image, then a slice."""
    out = np.full((height, width, 3), 255.0)
    for row in range(max(y, 0), min(y + height, pixels.shape[0])):
        left, right = max(x, 0), min(x + width, pixels.shape[1])
        if left < right:
            out[row - y, left - x : right - x] = pixels[row, left:right]
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(-90, 380), st.integers(-90, 260), st.integers(0, 200), st.integers(0, 200))
def test_any_region_of_any_layout(written, x, y, width, height):
    slide, seen = written
    region = slide.read_region(x, y, width, height)
    assert region.dtype == np.uint8 and region.shape == (height, width, 3)
    # Blending with an alpha channel rounds; everything else is exact.
    assert np.abs(region - cut(seen, x, y, width, height)).max(initial=0) < 1


@pytest.mark.parametrize("layout", ["pages", "subifds", "ome", "ome pages", "0.4", "0.5"])
def test_levels_hold_the_pyramid(layout, tmp_path):
    levels = halves(picture(500, 701), 3)
    if layout[0] == "0":
        path = ome_zarr(tmp_path / "a.zarr", levels, version=layout)
    else:
        subifds, ome = layout in ("subifds", "ome"), layout.startswith("ome")
        path = pyramid_tiff(tmp_path / "a.tif", levels, subifds=subifds, ome=ome)
    with open_slide(path) as slide:
        assert [lv.downsample for lv in slide.levels] == [1, 2, 4]
        for index, level in enumerate(levels):
            assert (np.asarray(slide.pyramid()[index]) == level).all()


def test_lazy_levels_index_like_arrays(tmp_path):
    pixels = picture()
    level = open_slide(tiff(tmp_path / "a.tif", pixels, tile=(64, 64))).pyramid()[0]
    assert (level.shape, level.ndim, level.dtype, len(level)) == ((203, 317, 3), 3, np.uint8, 203)
    for key in [
        np.s_[3], np.s_[-1, 4], np.s_[5:60:7, ::3], np.s_[..., 1], np.s_[50:10:-3, 2, 0:2],
        np.s_[:, 300:400], np.s_[9:9], np.s_[..., 5, :], np.s_[np.int64(4), 1:2, 2],
    ]:  # fmt: skip
        assert np.array_equal(level[key], pixels[key]), key
    for key in [np.s_[203], np.s_[0, 0, 0, 0], np.s_[[1, 2]], "y"]:
        with pytest.raises(IndexError):
            level[key]


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Red tells x and green tells y, half a step per px: a slide of three levels, one of a
    single level, and the pixels. Dithered, so that means over rows or columns are exact."""
    rng, levels = np.random.default_rng(0), []
    for factor in (1, 2, 4):
        y, x = ((np.mgrid[: 480 // factor, : 480 // factor] + 0.5) * factor - 0.5) / 2
        dither = rng.random((2, *x.shape))
        level = np.stack([x + dither[0], y + dither[1], x * 0 + 100], axis=2)
        levels.append(level.astype(np.uint8))
    folder = tmp_path_factory.mktemp("ramps")
    return (
        open_slide(pyramid_tiff(folder / "p.tif", levels, subifds=False)),
        open_slide(tiff(folder / "f.tif", levels[0], tile=(64, 64))),
        levels[0],
    )


class TestSquare:
    def test_whole_pixels_are_returned_as_they_are(self, ramps):
        slide, _, pixels = ramps
        assert (slide.read_patch(300, 250, 112, 112) == pixels[194:306, 244:356]).all()
        assert (slide.read_patch(300.5, 250.5, 7, 7) == pixels[247:254, 297:304]).all()

    # Sides that are no multiple of the output: else all columns round to 8 bits the same way.
    @settings(max_examples=30, deadline=None)
    @given(
        st.floats(150, 330),
        st.floats(150, 330),
        st.sampled_from([73.3, 97.1, 153.7, 201.3, 241.9]),
        st.sampled_from([40, 56]),
    )
    def test_every_level_gives_the_same_position(self, ramps, x, y, side, px):
        for slide in ramps[:2]:
            square = slide.read_patch(x, y, side, px).astype(float)
            # Pixel i covers i to i + 1: on the ramp, position p has the value (p - 0.5) / 2.
            assert 2 * square[:, :, 0].mean() + 0.5 == pytest.approx(x, abs=0.3)
            assert 2 * square[:, :, 1].mean() + 0.5 == pytest.approx(y, abs=0.3)
            columns = square[:, :, 0].mean(axis=0)
            assert 2 * (columns[-1] - columns[0]) == pytest.approx(side * (px - 1) / px, abs=1.5)

    def test_adjacent_patches_form_one_window(self, ramps):
        """The engine reads five patches at once: each must be what it is on its own."""
        slide, side, px = ramps[0], 60.4, 50
        window = slide.read_patch(250.3, 241.7, 5 * side, 5 * px)
        for column in range(5):  # those at the edge reach into the white
            x = 250.3 + (column - 2) * side
            alone = slide.read_patch(x, 241.7, side, px)
            part = window[100:150, column * px : (column + 1) * px]
            assert np.abs(part.astype(int) - alone).max() <= 1

    def test_outside_is_white(self, ramps):
        slide, _, pixels = ramps
        corner = slide.read_patch(0, 0, 100, 100)
        assert (corner[50:, 50:] == pixels[:50, :50]).all()
        assert (corner[:50] == 255).all() and (corner[:, :50] == 255).all()
        assert (slide.read_patch(-5000, 90, 300, 60) == 255).all()

    @pytest.mark.parametrize("bad", [(np.nan, 0, 9, 9), (0, 0, 0, 9), (0, 0, 9, 0)])
    def test_invalid_patches_raise(self, ramps, bad):
        with pytest.raises(SlideError, match="square"):
            ramps[0].read_patch(*bad)


@pytest.fixture(scope="module")
def large():
    return picture(1100, 4501)


class TestFlat:
    """Images that bring no pyramid get one above 4,096 px."""

    @pytest.mark.parametrize("layout", ["png", "tiles", "strips", "one block"])
    def test_pyramid_of_means(self, layout, large: PatchPixels, tmp_path):
        options = {
            "tiles": {"tile": (256, 256), "compression": "lzw"},
            "strips": {"rowsperstrip": 16, "compression": "lzw"},
            "one block": {},
        }
        if layout == "png":
            path = tmp_path / "a.png"
            Image.fromarray(large).save(path, compress_level=1)
        else:
            path = tiff(tmp_path / "a.tif", large, **options[layout])
        with open_slide(path) as slide:
            sizes = [(lv.width, lv.height, lv.downsample) for lv in slide.levels]
            assert sizes == [(4501, 1100, 1), (2251, 550, 2), (1126, 275, 4), (563, 138, 8)]
            for index in (3, 1):
                expected = large.astype(np.float64)
                for _ in range(index):
                    odd = [(0, n % 2) for n in expected.shape[:2]]
                    e = np.pad(expected, (*odd, (0, 0)), mode="edge")
                    e = e[0::2, 0::2] + e[1::2, 0::2] + e[0::2, 1::2] + e[1::2, 1::2]
                    expected = e / 4
                level = np.asarray(slide.pyramid()[index])
                # Each step rounds to a whole value.
                assert np.abs(level - expected).max() <= 0.5 * index

    def test_small_images_have_one_level(self, tmp_path):
        Image.fromarray(picture()).save(tmp_path / "a.png")
        assert len(open_slide(tmp_path / "a.png").levels) == 1

    def test_levels_of_a_large_jpeg_agree(self, large: PatchPixels, tmp_path):
        Image.fromarray(large).save(tmp_path / "a.jpg", quality=95)
        with open_slide(tmp_path / "a.jpg") as slide:
            before = np.asarray(slide.pyramid()[2])
            slide.prefetch()
            full = slide.read_region(0, 0, slide.width, slide.height)
            assert (full == np.asarray(Image.open(tmp_path / "a.jpg"))).all()
            # The scaled decoding is the mean of its pixels, and does not depend on history.
            assert (np.asarray(slide.pyramid()[2]) == before).all()
            mean = full[:, :4500].reshape(275, 4, 1125, 4, 3).mean(axis=(1, 3))
            assert np.abs(before[:, :1125] - mean).mean() < 2

    def test_cmyk_jpeg(self, tmp_path):
        Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
        with open_slide(tmp_path / "a.jpg") as slide:
            difference = slide.read_region(0, 0, 317, 203).astype(int) - picture()
            assert np.abs(difference).mean() < 6

    def test_image_larger_than_free_memory_raises(self, tmp_path, monkeypatch):
        import psutil

        Image.fromarray(picture(600, 800)).save(tmp_path / "a.png")
        slide = open_slide(tmp_path / "a.png")
        free = psutil.virtual_memory()._replace(available=1_000_000)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
        for read in (lambda: open_slide(tmp_path / "a.png"), lambda: slide.read_region(0, 0, 9, 9)):
            with pytest.raises(SlideError, match=r"a\.png.*800 x 600.*GB are free.*pyramidal TIFF"):
                read()
        monkeypatch.undo()
        assert slide.read_region(0, 0, 800, 600).shape == (600, 800, 3)  # once there is room

    def test_16_bit_colour_png(self, tmp_path):
        import imagecodecs

        pixels = picture().astype(np.uint16) * 257
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
        with open_slide(tmp_path / "a.png") as slide:
            assert (slide.read_region(0, 0, 317, 203) == picture()).all()
            assert (np.asarray(Image.open(tmp_path / "a.png").convert("RGB")) == picture()).all()

    def test_image_above_the_size_limit_raises(self, tmp_path):
        # Only the header says 40,000 x 40,000.
        Image.fromarray(picture()).save(tmp_path / "a.png")
        data = bytearray((tmp_path / "a.png").read_bytes())
        data[16:24] = (40_000).to_bytes(4, "big") * 2
        import zlib

        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(SlideError, match=r"a\.png.*40,000 x 40,000.*pyramidal TIFF"):
            open_slide(tmp_path / "a.png")


@pytest.mark.parametrize("layout", ["tiff tiles", "tiff one block", "ome-zarr 0.4", "png"])
def test_many_threads_read_the_same_pixels(layout, tmp_path):
    path, seen = LOSSLESS[layout](tmp_path, picture())
    corners = np.random.default_rng(1).integers(0, [230, 120], (200, 2)).tolist()
    with open_slide(path) as slide, ThreadPoolExecutor(6) as pool:
        regions = pool.map(lambda c: slide.read_region(c[0], c[1], 80, 80), corners)
        for (x, y), region in zip(corners, regions, strict=True):
            assert (region == seen[y : y + 80, x : x + 80]).all()


def test_closing_waits_for_readers(data_dir):
    """Threads that read while the slide is closed finish, or are told; nothing crashes."""
    slide = open_slide(data_dir / "her2st" / "crop" / "C3_crop_pyramid.tif")

    def read(i):
        try:
            return slide.read_patch(500 + i, 900, 1120, 560).shape
        except SlideError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(read, i) for i in range(60)]
        answers[5].result()
        slide.close()
        results = {answer.result() for answer in answers}
    assert (560, 560, 3) in results
    assert all(r == (560, 560, 3) or "closed" in r for r in results)


class TestRealSlides:
    def test_crop_in_three_formats(self, data_dir):
        crop = data_dir / "her2st" / "crop"
        names = ("C3_crop.jpg", "C3_crop.ome.tif", "C3_crop_pyramid.tif")
        slides = [open_slide(crop / n) for n in names]
        assert [s.name for s in slides] == ["C3_crop", "C3_crop", "C3_crop_pyramid"]
        assert [s.mpp for s in slides] == [None, 0.6874, 0.6874]
        assert [s.pixel_size and s.pixel_size.origin for s in slides[1:]] == [
            "OME metadata",
            "TIFF resolution",
        ]
        assert [lv.downsample for lv in slides[1].levels] == [1, 2, 4, 8]
        squares = [s.read_patch(1201.5, 1300.25, 1120, 224).astype(float) for s in slides]
        for other in squares[1:]:
            assert np.abs(squares[0] - other).mean() < 6
        assert len({s.fingerprint() for s in slides}) == 3
        assert open_slide(crop / "C3_crop.jpg").fingerprint() == slides[0].fingerprint()

    def test_svs_as_openslide_reads_it(self, data_dir):
        openslide = pytest.importorskip("openslide")
        path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
        reference = openslide.OpenSlide(str(path))
        with open_slide(path) as slide:
            assert slide.pixel_size == PixelSize(0.499, "Aperio metadata")
            assert len(slide.levels) == 1
            expected = np.asarray(reference.read_region((700, 1100), 0, (900, 700)).convert("RGB"))
            assert (slide.read_region(700, 1100, 900, 700) == expected).all()

    def test_svs_through_openslide_is_the_same(self, data_dir):
        """The reader of all vendor formats, on the one vendor file at hand."""
        pytest.importorskip("openslide")
        from napari_dkan.slide.sources.openslide_source import OpenSlideSource

        path = data_dir / "wsi" / "CMU-1-Small-Region.svs"
        source = OpenSlideSource(path)
        with open_slide(path) as slide:
            assert source.levels == slide.levels
            assert source.pixel_size_metadata.pixel_size.mpp == slide.mpp
            region = slide.read_region(33, 44, 500, 300)
            assert (source.read(0, 33, 44, 500, 300) == region).all()
        source.close()

    def test_overview_does_not_decode_level_0(self, data_dir, monkeypatch):
        from napari_dkan.slide.sources import jpeg_png_source as flat

        path = next((data_dir / "her2st" / "ST-imgs" / "C" / "C3").glob("*.jpg"))
        decode, factors = flat.decode_image, []
        monkeypatch.setattr(
            flat,
            "decode_image",
            lambda path, factor: factors.append(factor) or decode(path, factor),
        )
        with open_slide(path) as slide:
            assert not factors  # opening reads the header only
            overview = np.asarray(slide.pyramid()[-1])
            assert max(overview.shape) <= 1300
            assert factors and min(factors) > 1  # a small picture came out of the JPEG itself
            assert (slide.width, slide.height, slide.mpp) == (9270, 9936, None)
            # The same place from level 0 and from the overview.
            fine = slide.read_patch(2500, 2500, 1120, 140).astype(float)
            coarse = slide.read_region(2500 // 8 - 70, 2500 // 8 - 70, 140, 140, 3)
            assert np.abs(fine - coarse).mean() < 12
