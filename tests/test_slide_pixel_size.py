"""Pixel size: read where the file says it, unknown where it does not, never guessed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_dkan.errors import SlideError
from napari_dkan.slide import PixelSize, open_slide

from .slide_files import halves, ome_zarr, picture, tiff


class TestPixelSize:
    def size(self, path):
        with open_slide(path) as slide:
            assert slide.mpp == (slide.pixel_size and slide.pixel_size.mpp)
            return slide.pixel_size, slide.pixel_size_note

    @pytest.mark.parametrize(
        ("side", "unit", "mpp"),
        [(0.5, "µm", 0.5), (250, "nm", 0.25), (0.0005, "mm", 0.5), (0.7, None, 0.7)],
    )
    def test_ome(self, side, unit, mpp, tmp_path):
        metadata = {"PhysicalSizeX": side, "PhysicalSizeY": side}
        if unit:
            metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        path = tiff(tmp_path / "a.ome.tif", picture(), metadata=metadata)
        size, note = self.size(path)
        assert (size.mpp, size.origin, note) == (pytest.approx(mpp), "OME metadata", "")

    def test_resolution_tag(self, tmp_path):
        def tagged(unit, per_unit_x, per_unit_y):
            return tiff(
                tmp_path / "a.tif", picture(),
                resolution=(per_unit_x, per_unit_y), resolutionunit=unit,
            )  # fmt: skip

        for unit, per_unit in (("CENTIMETER", 20_000), ("INCH", 50_800)):
            size, note = self.size(tagged(unit, per_unit, per_unit))
            assert (size.mpp, size.origin, note) == (pytest.approx(0.5), "TIFF resolution", "")
        assert self.size(tagged("NONE", 20_000, 20_000)) == (None, "")
        # Print resolutions are no pixel size; unequal sides are none either.
        size, note = self.size(tagged("INCH", 300, 300))
        assert size is None and "unknown" in note
        size, note = self.size(tagged("CENTIMETER", 20_000, 10_000))
        assert size is None and "not square" in note
        size, _ = self.size(tagged("CENTIMETER", 20_000, 20_100))
        assert size.mpp == pytest.approx(0.5, rel=0.01)

    def test_zarr(self, tmp_path):
        path = ome_zarr(tmp_path / "a.zarr", halves(picture(), 2), version="0.4")
        assert self.size(path) == (PixelSize(0.5, "OME-Zarr metadata"), "")

    def test_jpeg_has_no_pixel_size(self, tmp_path):
        Image.fromarray(picture()).save(tmp_path / "a.jpg", dpi=(25_400, 25_400))
        assert self.size(tmp_path / "a.jpg") == (None, "")

    @pytest.mark.parametrize("mpp", [0.049, 20.1, 0.0, -1.0, np.nan, np.inf])
    def test_implausible_pixel_sizes_raise(self, mpp):
        with pytest.raises(SlideError, match="pixel size"):
            PixelSize(mpp, "entered by hand")
