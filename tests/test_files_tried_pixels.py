"""Pixels and pixel sizes of slides as people export them, read right or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_dkan.errors import SlideError
from napari_dkan.slide import open_slide

from .slide_files import ome_zarr, picture, pyramid_tiff, tiff

Write = Callable[[Path, np.ndarray], Path]
PIXELS = picture()
CONTAINERS: dict[str, Write] = {
    "strips": lambda folder, pixels: tiff(folder / "a.tif", pixels),
    "tiles": lambda folder, pixels: pyramid_tiff(
        folder / "a.tif", [pixels, pixels[::2, ::2]], subifds=False
    ),
    "planes": lambda folder, pixels: tiff(
        folder / "a.tif", np.moveaxis(pixels, 2, 0), photometric="rgb", planarconfig="separate"
    ),
    "OME-Zarr": lambda folder, pixels: ome_zarr(folder / "a.zarr", [pixels], version="0.4"),
}


@pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_pixels_of_a_camera_in_16_bits_are_refused(write: Write, bits: int, tmp_path: Path) -> None:
    stored = (PIXELS.astype(np.uint16) << 8) >> (16 - bits)
    path = write(tmp_path, stored.astype(np.uint16))
    with pytest.raises(SlideError, match=rf"16 bits stay below {2**bits:,}.*8 bits per channel"):
        open_slide(path)


@pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)
def test_pixels_that_fill_16_bits_are_read(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path, PIXELS.astype(np.uint16) * 257)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_region(0, 0, slide.width, slide.height), PIXELS)


def test_dark_pixels_of_8_bits_are_read(tmp_path: Path) -> None:
    with open_slide(tiff(tmp_path / "a.tif", PIXELS // 16)) as slide:
        assert np.array_equal(slide.read_region(0, 0, slide.width, slide.height), PIXELS // 16)


def test_colours_are_named(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", PIXELS, photometric="cielab")
    with pytest.raises(SlideError, match="stored as CIELAB; export it as RGB"):
        open_slide(path)


@pytest.mark.parametrize("metadata", [None, {}])
def test_several_pages_of_rgb_are_no_channels(metadata: dict | None, tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.stack([PIXELS] * 3), metadata=metadata)
    with pytest.raises(SlideError, match=r"it has 3 images.*; export one of them"):
        open_slide(path)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [("um", 2, 0.5), ("micron", 2, 0.5), ("\\u00B5m", 2, 0.5), ("mm", 2000, 0.5),
     ("pixel", 1, None), ("", 1, None)],
)  # fmt: skip
def test_the_pixel_size_of_imagej(unit: str, per_unit: int, mpp, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, imagej=True, resolution=(per_unit, per_unit),
        metadata={"unit": unit},
    )  # fmt: skip
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert mpp is None or slide.pixel_size.origin == "ImageJ resolution"
