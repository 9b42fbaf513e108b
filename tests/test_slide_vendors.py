"""The scanners' own formats, written here and read by the real OpenSlide or tifffile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from napari_dkan.slide import open_slide

from . import vendor_files
from .slide_files import halves, picture, tiff

pytest.importorskip("openslide")


@pytest.fixture(scope="module")
def levels():
    return halves(picture(512, 768), 3)


def written(kind, folder, levels):
    if kind.startswith("svs"):
        compression = {"jpeg": "jpeg", "33003": "APERIO_JP2000_YCBC", "33005": "APERIO_JP2000_RGB"}
        said = "AppMag = 40|MPP = 0.2500"
        path = folder / "a slide.svs"
        return vendor_files.svs(path, levels, compression[kind.split()[1]], said)
    return getattr(vendor_files, kind)(
        folder / f"Schnitt Nr. 7, Färbung HE.{kind}", levels, 0.25, 40
    )


KINDS = {
    "svs jpeg": "Aperio", "svs 33003": "Aperio", "svs 33005": "Aperio", "ndpi": "Hamamatsu",
    "scn": "Leica", "bif": "Ventana", "mrxs": "Mirax",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_pixels_from_every_level(kind, levels, tmp_path):
    with open_slide(written(kind, tmp_path, levels)) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert slide.pixel_size.origin == f"{KINDS[kind]} metadata"
        assert not slide.pixel_size.is_estimated
        assert abs(slide.width - 768) <= 1 and abs(slide.height - 512) <= 1  # SCN rounds up
        assert [lv.downsample for lv in slide.levels[:3]] == [1, 2, 4]

        def difference(place):
            level, x, y = place
            pixels = slide.read_region(x, y, 90, 70, level)
            return np.abs(pixels.astype(int) - levels[level][y : y + 70, x : x + 90]).mean()

        # Across the borders of tiles, and from several threads, as the window reads.
        places = [(0, 600, 400), (0, 80, 100), (1, 90, 80), (1, 200, 150), (2, 70, 40)] * 3
        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(difference, places)) < 4  # JPEG, and noise of 13 in the picture


class TestObjective:
    def estimated(self, path, mpp):
        with open_slide(path) as slide:
            assert slide.mpp == mpp and slide.pixel_size.is_estimated
            assert slide.pixel_size.origin == "objective power"
            assert "about" in slide.pixel_size_note and "objective" in slide.pixel_size_note

    def test_of_a_slide_without_a_pixel_size(self, levels, tmp_path):
        svs, bif = tmp_path / "a.svs", tmp_path / "a.bif"
        self.estimated(vendor_files.svs(svs, levels, "jpeg", "AppMag = 20"), 0.5)
        self.estimated(vendor_files.bif(bif, levels, None, 40), 0.25)

    def test_of_an_ome_tiff(self, tmp_path):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Instrument '
            'ID="Instrument:0"><Objective ID="Objective:1" NominalMagnification="10"/><Objective '
            'ID="Objective:0" NominalMagnification="20.0"/></Instrument><Image ID="Image:0">'
            '<ObjectiveSettings ID="Objective:0"/><Pixels ID="Pixels:0" Type="uint8" '
            'DimensionOrder="XYCZT" SizeX="317" SizeY="203" SizeC="3" SizeZ="1" SizeT="1">'
            '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData/></Pixels></Image></OME>'
        )
        path = tiff(tmp_path / "a.ome.tif", picture(), description=xml)
        with tifffile.TiffFile(path) as tif:
            assert tif.is_ome
        self.estimated(path, 0.5)

    @pytest.mark.parametrize("power", ["0", "-20", "4000", "nan", "x"])
    def test_implausible_magnifications_are_ignored(self, power, levels, tmp_path):
        path = vendor_files.svs(tmp_path / "a.svs", levels[:1], "jpeg", f"AppMag = {power}")
        with open_slide(path) as slide:
            assert slide.mpp is None
