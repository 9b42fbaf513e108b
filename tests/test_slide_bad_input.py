"""Bad slides: one plain sentence that names the file, and never wrong pixels."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dkan.errors import SlideError
from napari_dkan.slide import open_slide

from .slide_files import halves, ome_zarr, picture, pyramid_tiff, tiff


class TestBadInput:
    def refused(self, path, *words):
        with pytest.raises(SlideError) as caught:
            open_slide(path)
        sentence = str(caught.value)
        assert Path(path).name in sentence and "\n" not in sentence
        for word in words:
            assert word in sentence
        return sentence

    def test_no_slides(self, tmp_path):
        self.refused(tmp_path / "nowhere.svs", "no slide")
        self.refused(tmp_path / ("long" * 100), "no slide")
        (tmp_path / "empty.tif").write_bytes(b"")
        self.refused(tmp_path / "empty.tif", "empty")
        (tmp_path / "notes.svs").write_text("not a slide at all, just text")
        self.refused(tmp_path / "notes.svs", "not a slide")
        (tmp_path / "folder.zarr").mkdir()
        self.refused(tmp_path / "folder.zarr", "not an OME-Zarr")
        for start in (b"II*\0", b"MM\0*", b"II+\0", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"):
            (tmp_path / "start.bin").write_bytes(start)
            self.refused(tmp_path / "start.bin")
            (tmp_path / "start.bin").write_bytes(start + bytes(range(256)) * 8)
            self.refused(tmp_path / "start.bin")

    def test_images_that_are_not_rgb_raise(self, tmp_path):
        floats = tiff(
            tmp_path / "f.tif", picture()[:, :, 0].astype(np.float32), photometric="minisblack"
        )
        self.refused(floats, "float32", "RGB")
        stack = tifffile.imwrite(
            tmp_path / "z.ome.tif", np.zeros((5, 64, 64), np.uint8), metadata={"axes": "ZYX"}
        )
        assert stack is None
        self.refused(tmp_path / "z.ome.tif", "focal planes")
        tifffile.imwrite(
            tmp_path / "c.ome.tif", np.zeros((5, 64, 64), np.uint8), metadata={"axes": "CYX"}
        )
        self.refused(tmp_path / "c.ome.tif", "5 channels")

        several = tiff(tmp_path / "s.tif", np.stack([picture(), picture()]))
        self.refused(several, "2 images")

    def test_zarr_that_is_no_image(self, tmp_path):
        import zarr

        zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
        self.refused(tmp_path / "g.zarr", "not an OME-Zarr")
        zarr.create_array(str(tmp_path / "a.zarr"), shape=(9, 9), dtype="u1")
        self.refused(tmp_path / "a.zarr", "not an OME-Zarr")
        path = ome_zarr(tmp_path / "lost.zarr", [picture()], version="0.5")
        shutil.rmtree(path / "0")
        self.refused(path)

    def truncations(self, path, whole):
        """However much is missing: a plain no, or the right pixels; at least half say no."""
        data, refusals = path.read_bytes(), 0
        for part in np.linspace(0.02, 0.98, 25):
            short = path.with_name(f"short{path.suffix}")
            short.write_bytes(data[: int(len(data) * part)])
            try:
                with open_slide(short) as slide:
                    pixels = slide.read_region(0, 0, whole.shape[1], whole.shape[0])
            except SlideError as error:
                sentence, pixels = str(error), whole
                refusals += short.name in sentence
            assert (pixels == whole).all(), part
        assert refusals > 12

    @pytest.mark.parametrize("layout", ["png", "jpg", "tiles", "strips", "one block", "ome"])
    def test_truncated_files_raise(self, layout, tmp_path):
        pixels = picture(400, 500)
        if layout in ("png", "jpg"):
            path = tmp_path / f"a.{layout}"
            Image.fromarray(pixels).save(path)
        elif layout == "ome":
            path = pyramid_tiff(tmp_path / "a.tif", halves(pixels, 3), subifds=True, ome=True)
        else:
            options = {"tiles": {"tile": (64, 64), "compression": "jpeg"}}
            options["strips"] = {"rowsperstrip": 8, "compression": "deflate"}
            path = tiff(tmp_path / "a.tif", pixels, **options.get(layout, {}))
        with open_slide(path) as slide:
            whole = slide.read_region(0, 0, 500, 400)
        self.truncations(path, whole)

    def test_truncated_svs_raises(self, data_dir, tmp_path):
        path = tmp_path / "a.svs"
        shutil.copyfile(data_dir / "wsi" / "CMU-1-Small-Region.svs", path)
        with open_slide(path) as slide:
            whole = slide.read_region(0, 0, slide.width, slide.height)
        self.truncations(path, whole)

    @pytest.mark.parametrize("part", [0.004, 0.01, 0.7])
    def test_truncated_section_raises(self, part, data_dir, tmp_path):
        """Its thumbnail ends with a JPEG's end mark, which is not the end of the section."""
        data = next((data_dir / "her2st" / "ST-imgs" / "C" / "C3").glob("*.jpg")).read_bytes()
        (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * part)])

        def read():
            with open_slide(tmp_path / "a.jpg") as slide:
                slide.read_region(0, 0, 10, 10)

        with pytest.raises(SlideError, match=r"a\.jpg"):
            read()

    def test_damage_inside_a_tile(self, tmp_path):
        path = tiff(tmp_path / "a.tif", picture(), tile=(64, 64), compression="deflate")
        with tifffile.TiffFile(path) as tif:
            at = tif.pages[0].dataoffsets[0]
        data = bytearray(path.read_bytes())
        data[at : at + 60] = b"\xff" * 60
        path.write_bytes(data)
        with open_slide(path) as slide:
            with pytest.raises(SlideError, match=r"a\.tif is damaged"):
                slide.read_region(0, 0, 10, 10)
            slide.read_region(200, 100, 50, 50)

    @pytest.mark.parametrize("kind", ["tif", "png", "zarr"])
    def test_deleted_or_changed_while_open(self, kind, tmp_path):
        path = tmp_path / f"a.{kind}"
        if kind == "zarr":
            ome_zarr(path, [picture()], version="0.5")
        elif kind == "tif":
            tiff(path, picture(), tile=(64, 64))
        else:
            Image.fromarray(picture()).save(path)
        slide = open_slide(path)
        slide.read_region(0, 0, 200, 200)
        if kind != "zarr":
            os.utime(path, (time.time() + 5, time.time() + 5))
            with pytest.raises(SlideError, match="changed"):
                slide.read_region(0, 0, 9, 9)
        shutil.rmtree(path) if kind == "zarr" else path.unlink()
        for read in (
            lambda: slide.read_region(0, 0, 20, 20),
            lambda: slide.read_patch(50, 50, 31, 20),
            lambda: slide.pyramid()[0][:5],
            slide.fingerprint,
        ):
            with pytest.raises(SlideError, match=f"The slide a.{kind} is gone"):
                read()

    def test_closed(self, tmp_path):
        slide = open_slide(tiff(tmp_path / "a.tif", picture(), tile=(64, 64)))
        slide.close()
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            slide.read_region(0, 0, 9, 9)
