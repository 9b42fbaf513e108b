"""Slide files as people have them: several images, other channels, a scan area on the glass."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_dkan.batch.predict_slide import predict_slide
from napari_dkan.batch.slide_job import SlideJob
from napari_dkan.errors import OutputError, SlideError, SpotsError
from napari_dkan.export.geojson_export import write_geojson
from napari_dkan.export.result_reader import load_result
from napari_dkan.export.saved_result import find_result_slide, save_result
from napari_dkan.inference.target import target_from_spots
from napari_dkan.slide import open_slide
from napari_dkan.slide.scan_area import ScanArea
from napari_dkan.spatial.region_files import read_regions
from napari_dkan.spatial.spots import Spots

from . import vendor_files
from .slide_files import halves, picture, tiff

MPP = 0.5
SCAN = picture(320, 448)
MACRO = picture(40, 180, seed=1)


def zarr_image(group: zarr.Group, pixels: np.ndarray, mpp: float, *, version: str) -> dict:
    """Write one image of axes t, c, z, y, x into a group."""
    data = np.moveaxis(pixels, 2, 0)[None, :, None]
    array = group.create_array("0", shape=data.shape, chunks=(1, 1, 1, 64, 64), dtype=data.dtype)
    array[...] = data
    space = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space]
    scale = [{"type": "scale", "scale": [1, 1, 1, mpp, mpp]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    return {"version": version, "axes": axes, "datasets": levels}


def write_zarr(path: Path, version: str, named: bool, listed: bool = True) -> Path:
    """bioformats2raw's layout, the macro before the scan."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    root.attrs["bioformats2raw.layout"] = 3
    for number, (name, pixels, mpp) in enumerate(
        (("macro image", MACRO, 8.0), ("tissue", SCAN, MPP))
    ):
        group = root.create_group(str(number))
        image = zarr_image(group, pixels, mpp, version=version)
        if named:
            image["name"] = name
        multiscales = {"multiscales": [image]}
        group.attrs.update(multiscales if version == "0.4" else {"ome": multiscales})
    if listed:
        series = {"series": ["0", "1"]}
        root.create_group("OME").attrs.update(series if version == "0.4" else {"ome": series})
    return path


def write_ome_tiff(path: Path, scan: np.ndarray = SCAN, macro: np.ndarray = MACRO) -> Path:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, pixels, mpp in (("macro image", macro, 8.0), ("tissue", scan, MPP)):
            size = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            units = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
            metadata = {"Name": name, **size, **units}
            writer.write(pixels, photometric="rgb", tile=(64, 64), metadata=metadata)
    return path


def write_pages(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for name, pixels, mpp in (("macro", MACRO, 8.0), ("tissue", SCAN, MPP)):
            writer.write(
                pixels, photometric="rgb", description=name, metadata=None,
                resolution=(10_000 / mpp,) * 2, resolutionunit="CENTIMETER",
            )  # fmt: skip
    return path


CONTAINERS = {
    "zarr 0.4": lambda d: write_zarr(d / "a.zarr", "0.4", named=True),
    "zarr 0.5": lambda d: write_zarr(d / "a.zarr", "0.5", named=True),
    "zarr without names": lambda d: write_zarr(d / "a.zarr", "0.4", named=False),
    "zarr without a list": lambda d: write_zarr(d / "a.zarr", "0.5", named=True, listed=False),
    "ome-tiff": lambda d: write_ome_tiff(d / "a.ome.tif"),
    "tiff pages": lambda d: write_pages(d / "a.tif"),
}


class TestSeveralImages:
    @pytest.mark.parametrize("container", CONTAINERS)
    def test_the_scan_is_opened(self, container, tmp_path):
        with open_slide(CONTAINERS[container](tmp_path)) as slide:
            assert (slide.width, slide.height) == (448, 320)
            assert slide.mpp == pytest.approx(MPP)
            assert len(slide.images) == 2
            assert slide.image_name == ("1" if "without names" in container else "tissue")
            assert np.array_equal(slide.read_region(0, 0, 448, 320), SCAN)

    @pytest.mark.parametrize("container", CONTAINERS)
    def test_another_image_is_chosen_by_number_or_name(self, container, tmp_path):
        path = CONTAINERS[container](tmp_path)
        words = [0, "0"] + ["macro"] * ("without names" not in container)
        with open_slide(path) as scan:
            fingerprint = scan.fingerprint()
        for word in words:
            with open_slide(path, image=word) as slide:
                assert (slide.width, slide.height) == (180, 40)
                assert slide.mpp == pytest.approx(8.0)
                assert np.array_equal(slide.read_region(0, 0, 180, 40), MACRO)
                assert slide.fingerprint() != fingerprint
        with open_slide(path, image=1) as slide:
            assert (slide.width, slide.height) == (448, 320)

    @pytest.mark.parametrize("container", CONTAINERS)
    def test_an_unknown_image_is_refused_with_the_list(self, container, tmp_path):
        with pytest.raises(SlideError, match=r"no single image label; give one of 0: .*448 x 320"):
            open_slide(CONTAINERS[container](tmp_path), image="label")

    def test_a_macro_is_never_taken_even_if_it_is_larger(self, tmp_path):
        path = write_ome_tiff(tmp_path / "a.ome.tif", macro=picture(500, 500))
        with open_slide(path) as slide:
            assert (slide.image_name, slide.mpp) == ("tissue", pytest.approx(MPP))

    def test_a_macro_of_the_shape_of_the_scan_is_no_level_of_it(self, tmp_path):
        path = write_ome_tiff(tmp_path / "a.ome.tif", macro=np.ascontiguousarray(SCAN[::4, ::4]))
        with open_slide(path) as slide:
            assert (len(slide.levels), slide.width) == (1, 448)

    def test_images_of_the_same_size_have_their_own_pixel_size(self, tmp_path):
        path = write_ome_tiff(tmp_path / "a.ome.tif", macro=picture(320, 448, seed=3))
        for word, mpp in (("macro", 8.0), ("tissue", MPP), (None, MPP)):
            with open_slide(path, image=word) as slide:
                assert slide.mpp == pytest.approx(mpp)

    def test_one_image_named_macro_is_opened(self, tmp_path):
        path = tiff(tmp_path / "a.ome.tif", SCAN, metadata={"Name": "macro"})
        with open_slide(path) as slide:
            assert (slide.width, slide.images[0].name, slide.image_name) == (448, "macro", "")

    def test_a_store_in_memory(self, tmp_path):
        import fsspec

        local = write_zarr(tmp_path / "a.zarr", "0.4", named=True)
        memory = fsspec.filesystem("memory")
        memory.put(str(local), "/macro-first.zarr", recursive=True)
        try:
            with open_slide("memory://macro-first.zarr") as slide:
                assert (slide.width, slide.image_name) == (448, "tissue")
        finally:
            memory.rm("/macro-first.zarr", recursive=True)

    def test_aperio(self, real_svs):
        with open_slide(real_svs) as slide:
            assert (slide.width, slide.image_name) == (2220, "Baseline")
        with open_slide(real_svs, image="macro") as macro:
            assert (macro.width, macro.height, macro.mpp) == (1280, 431, None)
        with open_slide(real_svs, image="thumbnail") as thumbnail:
            assert (thumbnail.width, thumbnail.mpp) == (574, None)

    def test_openslide(self, tmp_path):
        levels = halves(picture(512, 640), 2)
        path = vendor_files.bif(tmp_path / "a.bif", levels, 0.25, 40)
        with open_slide(path) as slide:
            assert (slide.width, slide.image_name, len(slide.images)) == (640, "scan", 2)
        with open_slide(path, image="macro") as macro:
            assert (macro.width, macro.height, macro.mpp) == (64, 64, None)
        with pytest.raises(SlideError, match="give one of 0: scan"):
            open_slide(path, image="label 2")

    def test_jpeg_has_one_image(self, tmp_path):
        from PIL import Image

        Image.fromarray(SCAN).save(tmp_path / "a.jpg")
        open_slide(tmp_path / "a.jpg", image=0).close()
        with pytest.raises(SlideError, match="it has one image"):
            open_slide(tmp_path / "a.jpg", image="macro")


@pytest.fixture
def real_svs():
    import os

    path = Path(os.environ.get("NAPARI_DKAN_DATA", "")) / "wsi" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip("needs CMU-1-Small-Region.svs; set NAPARI_DKAN_DATA")
    return path


def channels(count: int, dtype: str, seed: int = 5) -> np.ndarray:
    """Fluorescence: every channel differs, dim background."""
    rng = np.random.default_rng(seed)
    top = 1.0 if dtype[0] == "f" else np.iinfo(dtype).max
    values = rng.gamma(1.5, 0.08, (96, 128, count)).clip(0, 1) * top
    return values.astype(dtype)


def write_channels(
    path: Path, pixels: np.ndarray, names: list[str] | None = None, colors: list[str] | None = None
) -> Path:
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    root.attrs["multiscales"] = [zarr_image(root, pixels, MPP, version="0.4")]
    listed = [{"label": name, "active": True} for name in names or []]
    for channel, color in zip(listed, colors or [], strict=False):
        channel["color"] = color
    if listed:
        root.attrs["omero"] = {"channels": listed}
    return path


class TestOtherChannels:
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    @pytest.mark.parametrize(
        "names", [None, ["DAPI", "FITC", "TRITC", "Cy5"], ["0", "1", "2", "3"]]
    )
    def test_four_channels_of_fluorescence(self, dtype, names, tmp_path):
        path = write_channels(tmp_path / "a.zarr", channels(4, dtype), names)
        with pytest.raises(SlideError, match=r"4 channels.*an H&E slide is RGB"):
            open_slide(path)

    @pytest.mark.parametrize("count", [2, 5, 7])
    def test_other_numbers_of_channels(self, count, tmp_path):
        path = write_channels(tmp_path / "a.zarr", channels(count, "uint16"))
        with pytest.raises(SlideError, match=f"{count} channels.*an H&E slide is RGB"):
            open_slide(path)

    @pytest.mark.parametrize("count", [1, 3, 4])
    @pytest.mark.parametrize("dtype", ["float32", "float64", "uint32"])
    def test_other_samples(self, count, dtype, tmp_path):
        path = write_channels(tmp_path / "a.zarr", channels(count, dtype))
        with pytest.raises(SlideError, match=f"its pixels are {dtype}; export it as RGB"):
            open_slide(path)

    @pytest.mark.parametrize(
        ("names", "colors"),
        [
            (["DAPI", "FITC", "TRITC"], None),
            (["CD3", "CD8", "PanCK"], None),
            (["", "", ""], ["0000FF", "00FF00", "FF0000"]),
            (["Hoechst 33342"], None),
        ],
    )
    def test_named_channels(self, names, colors, tmp_path):
        path = write_channels(tmp_path / "a.zarr", channels(len(names), "uint8"), names, colors)
        with pytest.raises(SlideError, match="an H&E slide is RGB"):
            open_slide(path)

    @pytest.mark.parametrize(
        ("names", "colors"),
        [
            (None, None),
            (["red", "green", "blue"], ["FF0000", "00FF00", "0000FF"]),
            (["Channel 0", "Channel 1", "Channel 2"], ["FF0000", "00FF00", "0000FF"]),
            (["", "", ""], ["808080"] * 3),
            (["TL Brightfield"] * 3, None),
        ],
    )
    def test_rgb_is_read(self, names, colors, tmp_path):
        path = write_channels(tmp_path / "a.zarr", SCAN, names, colors)
        with open_slide(path) as slide:
            assert np.array_equal(slide.read_region(0, 0, 448, 320), SCAN)

    @pytest.mark.parametrize("scanned", [1.0, 0.5])
    def test_opacity_is_read(self, scanned, tmp_path):
        alpha = np.full((320, 448, 1), 255, np.uint8)
        alpha[:, int(448 * scanned) :] = 0
        path = write_channels(tmp_path / "a.zarr", np.concatenate([SCAN, alpha], axis=2))
        with open_slide(path) as slide:
            seen = slide.read_region(0, 0, 448, 320)
        assert np.array_equal(seen[:, : int(448 * scanned)], SCAN[:, : int(448 * scanned)])
        assert (seen[:, int(448 * scanned) :] == 255).all()

    @pytest.mark.parametrize("count", [2, 4, 5])
    @pytest.mark.parametrize("planar", [False, True])
    def test_ome_tiff(self, count, planar, tmp_path):
        pixels = np.moveaxis(channels(count, "uint16"), 2, 0)
        options = {"planarconfig": "separate"} if planar else {}
        axes = "SYX" if planar else "CYX"
        tifffile.imwrite(
            tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata={"axes": axes},
            **options,
        )  # fmt: skip
        with pytest.raises(SlideError, match=f"{count} channels.*an H&E slide is RGB"):
            open_slide(tmp_path / "a.ome.tif")

    def test_ome_tiff_of_three_stains(self, tmp_path):
        pixels = np.moveaxis(channels(3, "uint8"), 2, 0)
        metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "TRITC"]}}
        path = tiff(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata=metadata)
        with pytest.raises(SlideError, match=r"3 channels of other stains \(DAPI, FITC, TRITC\)"):
            open_slide(path)


def write_scan_area(container: str, folder: Path) -> tuple[Path, np.ndarray, tuple[int, int]]:
    """A slide, the pixels of its scan area, and their corner on the glass."""
    pixels = picture(512, 640)
    levels = halves(pixels, 3)
    if container == "scn":
        path = vendor_files.scn(folder / "a.scn", levels, 0.5, 20, (100, 60), (40, 30))
        return path, pixels, (100, 60)
    path = vendor_files.mrxs(folder / "a.mrxs", levels, 0.5, 20, blank=(2, 1))
    return path, pixels[128:, 256:], (256, 128)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("container", ["scn", "mrxs"])
class TestScanArea:
    def test_positions_count_from_the_scan_area(self, container, tmp_path):
        path, pixels, _ = write_scan_area(container, tmp_path)
        height, width = pixels.shape[:2]
        with open_slide(path) as slide:
            assert (slide.width, slide.height, slide.scan_origin) == (width, height, (0, 0))
            assert mean_difference(slide.read_region(0, 0, width, height), pixels) < 4
            for i, level in enumerate(halves(pixels, 3)):
                seen = slide.read_region(0, 0, *level.shape[1::-1], i)
                assert mean_difference(seen, level) < 4
                corner = slide.read_region(33, 21, 150, 140, i)
                inside = level[21 : 21 + 140, 33 : 33 + 150]
                assert mean_difference(corner[: len(inside), : inside.shape[1]], inside) < 4

    def test_the_whole_glass_on_request(self, container, tmp_path):
        path, pixels, (x, y) = write_scan_area(container, tmp_path)
        with open_slide(path, whole_glass=True) as glass, open_slide(path) as scan:
            assert glass.scan_origin == (x, y)
            assert (glass.width, glass.height) >= (x + pixels.shape[1], y + pixels.shape[0])
            seen = glass.read_region(x, y, *pixels.shape[1::-1])
            assert mean_difference(seen, pixels) < 4
            assert glass.fingerprint() != scan.fingerprint()
            assert glass.mpp == scan.mpp

    def test_spots_that_count_from_the_glass_are_told(self, container, tmp_path):
        path, pixels, corner = write_scan_area(container, tmp_path)
        height, width = pixels.shape[:2]
        ends = np.array([[1.0, 2.0], [width - 1.0, height - 1.0]])
        with open_slide(path) as slide:
            size = slide.width, slide.height

            def refusal(xy: np.ndarray) -> str:
                with pytest.raises(SpotsError) as caught:
                    target_from_spots(Spots(xy), *size, "s.csv", slide.scan_area)
                return str(caught.value)

            assert "corner of the glass: open the slide with --whole-glass" in refusal(
                ends + corner
            )
            assert "glass" not in refusal(ends + corner + (2, 0))  # beside the scan area
            assert "glass" not in refusal(ends - corner)
        with open_slide(path, whole_glass=True) as slide:
            size = slide.width, slide.height
            far = ends + np.array([slide.width, 0])
            with pytest.raises(SpotsError, match="x first"):
                target_from_spots(Spots(far), *size, "s.csv", slide.scan_area)


@pytest.mark.parametrize("container", ["scn", "mrxs"])
class TestRegionsOnAScanArea:
    """Regions of QuPath and those written for it count from the scan area."""

    def regions(self, folder: Path) -> Path:
        ring = [[40, 30], [340, 30], [340, 330], [40, 330], [40, 30]]
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"},
        }
        path = folder / "regions.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        return path

    def test_they_are_read_in_the_frame_of_the_slide(self, container, tmp_path):
        path, _, corner = write_scan_area(container, tmp_path)
        for whole_glass, origin in ((False, (0, 0)), (True, corner)):
            with open_slide(path, whole_glass=whole_glass) as slide:
                region = read_regions(self.regions(tmp_path), slide.scan_area)
            expected = np.array([40, 30, 340, 330]) + 2 * origin
            assert region.bounds == tuple(expected)

    def test_both_frames_write_the_same_file_for_qupath(self, container, tmp_path):
        path, _, corner = write_scan_area(container, tmp_path)
        written = []
        for whole_glass in (None, True):
            out = tmp_path / f"{whole_glass}.h5ad"
            job = SlideJob(
                str(path), out, regions=self.regions(tmp_path), genes=("ERBB2",),
                tissue_only=False, device="cpu", store=False, whole_glass=whole_glass,
            )  # fmt: skip
            predict_slide(job)
            result = load_result(out)
            with find_result_slide(result, out) as slide:
                origin = corner if whole_glass else (0, 0)
                assert slide.scan_origin == result.slide_record.scan_origin == origin
            written.append(read_regions(write_geojson(tmp_path / "out.geojson", result)))
        assert np.allclose(written[0].bounds, (40, 30, 340, 330), atol=0.02)
        assert np.allclose(written[1].bounds, written[0].bounds, atol=0.02)

    def test_a_result_of_an_earlier_version_finds_its_slide(self, container, tmp_path):
        """It counted from the glass, and its record has no scan area."""
        path, _, _ = write_scan_area(container, tmp_path)
        out = tmp_path / "p.h5ad"
        predict_slide(
            SlideJob(
                str(path),
                out,
                regions=self.regions(tmp_path),
                genes=("ERBB2",),
                tissue_only=False,
                device="cpu",
                store=False,
                whole_glass=True,
            )
        )
        result = load_result(out)
        record = replace(result.slide_record, scan_origin=None)
        old = replace(result, slide_record=record)
        with find_result_slide(old, out) as slide:
            assert slide.width == record.width and slide.fingerprint() == record.fingerprint
        new, exported = (
            read_regions(write_geojson(tmp_path / f"{i}.geojson", r))
            for i, r in enumerate((result, old))
        )
        assert exported.equals(new)
        assert np.allclose(new.bounds, (40, 30, 340, 330), atol=0.02)
        save_result(out, old)
        assert load_result(out).slide_record == record
        path.rename(tmp_path / f"other{path.suffix}")
        with pytest.raises(OutputError, match=rf"put a\.{container} beside 2\.geojson"):
            write_geojson(tmp_path / "2.geojson", old)
        assert not (tmp_path / "2.geojson").exists()


@pytest.mark.parametrize("container", ["scn", "mrxs"])
class TestMasksOnAScanArea:
    """A mask covers the scan area (QuPath) or the glass (OpenSlide): its proportions decide."""

    BLOCK = (64, 32, 192, 160)  # left, top, right, bottom in the scan area

    def masks(self, folder: Path, scan: tuple[int, int], glass: tuple[int, int], corner) -> dict:
        """Masks of one block at a quarter of the resolution, of the scan area and the glass."""
        files = {}
        for name, (width, height), (x, y) in (("scan", scan, (0, 0)), ("glass", glass, corner)):
            pixels = np.zeros((height, width), np.uint8)
            left, top, right, bottom = self.BLOCK
            pixels[top + y : bottom + y, left + x : right + x] = 255
            files[name] = folder / f"{name}.tif"
            tifffile.imwrite(files[name], pixels[::4, ::4])
        return files

    @pytest.mark.parametrize("mask", ["scan", "glass"])
    @pytest.mark.parametrize("whole_glass", [False, True])
    def test_a_mask_of_either_in_either_frame(self, container, mask, whole_glass, tmp_path):
        path, pixels, corner = write_scan_area(container, tmp_path)
        with open_slide(path, whole_glass=True) as slide:
            glass = slide.width, slide.height
        files = self.masks(tmp_path, pixels.shape[1::-1], glass, corner)
        notes: list[str] = []
        with open_slide(path, whole_glass=whole_glass) as slide:
            region = read_regions(files[mask], slide.scan_area, note=notes.append)
            origin = corner if whole_glass else (0, 0)
        assert np.allclose(region.bounds, np.array(self.BLOCK) + 2 * origin, atol=4)
        assert not notes

    def test_predict_inside_a_mask(self, container, tmp_path):
        path, pixels, corner = write_scan_area(container, tmp_path)
        files = self.masks(tmp_path, pixels.shape[1::-1], pixels.shape[1::-1], (0, 0))
        for whole_glass in (None, True):
            job = SlideJob(
                str(path), tmp_path / "p.h5ad", regions=files["scan"], genes=("ERBB2",),
                tissue_only=False, device="cpu", store=False, whole_glass=whole_glass,
            )  # fmt: skip
            predict_slide(job)
            regions = load_result(job.out).regions
            assert regions is not None
            origin = corner if whole_glass else (0, 0)
            assert np.allclose(regions.bounds, np.array(self.BLOCK) + 2 * origin, atol=4)


class TestMaskOfBothProportions:
    def areas(self, whole_glass: bool) -> ScanArea:
        return ScanArea.on_glass((300, 200, 400, 200), 1600, 800, whole_glass)

    def mask(self, folder: Path, width: int, height: int) -> Path:
        pixels = np.zeros((height, width), np.uint8)
        pixels[: height // 2, : width // 2] = 1
        tifffile.imwrite(folder / "m.tif", pixels)
        return folder / "m.tif"

    @pytest.mark.parametrize(
        ("whole_glass", "bounds", "sentence"),
        [
            (False, (0, 0, 200, 100), "taken as a mask of the scan area.*with the whole glass"),
            (True, (0, 0, 800, 400), "taken as a mask of the glass.*without the whole glass"),
        ],
    )
    def test_the_open_frame_is_taken_with_a_sentence(self, whole_glass, bounds, sentence, tmp_path):
        notes: list[str] = []
        path = self.mask(tmp_path, 80, 40)
        region = read_regions(path, self.areas(whole_glass), note=notes.append)
        assert region.bounds == bounds
        assert len(notes) == 1 and re.search(sentence, notes[0])

    def test_the_exact_size_decides(self, tmp_path):
        notes: list[str] = []
        path = self.mask(tmp_path, 400, 200)
        region = read_regions(path, self.areas(True), note=notes.append)
        assert region.bounds == (300, 200, 500, 300) and not notes

    def test_other_proportions_are_refused_with_both_sizes(self, tmp_path):
        path = self.mask(tmp_path, 80, 80)
        with pytest.raises(SpotsError, match=r"neither the scan area \(400 x 200 px\) nor the gla"):
            read_regions(path, self.areas(False))

    def test_a_region_beside_the_scan_area_is_refused(self, tmp_path):
        path = self.mask(tmp_path, 1600, 800)
        area = ScanArea.on_glass((900, 500, 400, 220), 1600, 800, False)
        with pytest.raises(SpotsError, match="no region on the slide"):
            read_regions(path, area)


class TestVsi:
    """Its TIFF holds label and overviews; the scan lies in files that nothing here reads."""

    @pytest.mark.parametrize("name", ["a.vsi", "a.VSI", "a.tif", "a.ome.tif"])
    @pytest.mark.parametrize("has_scan", [True, False])
    def test_the_overview_is_never_the_scan(self, name, has_scan, tmp_path):
        path = tiff(tmp_path / name, picture(200, 300))
        part = tmp_path / f"_{path.stem}_" / "stack1" / "frame_t.ets"
        part.parent.mkdir(parents=True)
        part.write_bytes((b"SIS\0" if has_scan else b"\0\0\0\0") + bytes(100))
        if not has_scan and path.suffix == ".tif":
            with open_slide(path) as slide:  # another program's folder
                assert slide.width == 300
            return
        for opened in (path, part, part.parent.parent) if has_scan else (path,):
            with pytest.raises(SlideError, match=r"Olympus VSI.*bioformats2raw.*OME-TIFF"):
                open_slide(opened)

    def test_what_openslide_reads_is_read(self, tmp_path):
        """The name does not decide: the scan area and the associated images are those of SCN."""
        path, pixels, _ = write_scan_area("scn", tmp_path)
        with open_slide(path.rename(tmp_path / "a.vsi")) as slide:
            assert (slide.height, slide.width) == pixels.shape[:2]


class TestChosenImageInCommands:
    def test_predict_records_the_image(self, tmp_path):
        path = write_ome_tiff(tmp_path / "a.ome.tif", macro=picture(300, 300, seed=2))
        out = tmp_path / "p.h5ad"
        job = SlideJob(
            str(path), out, genes=("ERBB2",), tissue_only=False, device="cpu", store=False,
            image="macro", mpp=0.7, regions=TestRegionsOnAScanArea().regions(tmp_path),
        )  # fmt: skip
        predict_slide(job)
        result = load_result(out)
        assert (result.slide_record.image, result.slide_record.width) == ("macro image", 300)
        with find_result_slide(result, out) as slide:
            assert (slide.image_name, slide.width) == ("macro image", 300)

    def test_the_parameters_of_earlier_jobs_stay(self):
        parameters = json.loads(SlideJob("a.tif", Path("a.h5ad")).parameters_json())
        assert not {"image", "whole_glass"} & set(parameters)
