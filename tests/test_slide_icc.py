"""ICC profiles: applied where asked for, and never mixed up in what is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from napari_dkan.errors import SlideError
from napari_dkan.slide import open_slide

from .slide_files import halves, ome_zarr, picture, tiff
from .vendor_files import svs


def profile(kind="sRGB"):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes()


def swapped():
    """A profile of a scanner that takes red for blue: its primaries change places."""
    data = profile().replace(b"rXYZ", b"....", 1).replace(b"bXYZ", b"rXYZ", 1)
    return data.replace(b"....", b"bXYZ", 1)


def with_profile(kind, folder, icc):
    pixels = picture(700, 900)
    if kind == "tif":
        return tiff(folder / "a.tif", pixels, tile=(64, 64), iccprofile=icc)
    if kind == "svs by openslide":
        return svs(folder / "a.svs", halves(pixels, 2), "APERIO_JP2000_YCBC", "MPP = 0.5", icc)
    Image.fromarray(pixels).save(folder / f"a.{kind}", icc_profile=icc)
    return folder / f"a.{kind}"


@pytest.mark.parametrize("kind", ["tif", "png", "jpg", "svs by openslide"])
def test_profile_is_applied_if_requested(kind, tmp_path):
    path = with_profile(kind, tmp_path, swapped())
    with open_slide(path) as plain, open_slide(path, apply_icc=True) as slide:
        stored = plain.read_region(0, 0, 900, 700)
        assert plain.color_conversion == ""
        assert slide.color_conversion.startswith(
            "ICC profile sRGB"
        ) and slide.color_conversion.endswith("to sRGB")
        assert slide.fingerprint() == plain.fingerprint()
        places = [(x, y) for x in range(0, 800, 90) for y in range(0, 600, 110)]
        with ThreadPoolExecutor(6) as pool:
            read = list(pool.map(lambda place: slide.read_region(*place, 97, 83), places))
        for (x, y), pixels in zip(places, read, strict=True):
            expected = stored[y : y + 83, x : x + 97, ::-1].astype(int)
            assert np.abs(pixels - expected).max() <= 2
        # White stays white outside of the slide as well as on it.
        assert (slide.read_region(-20, -20, 10, 10) == 255).all()


def test_slides_without_a_profile_are_as_stored(tmp_path):
    for path in (
        tiff(tmp_path / "a.tif", picture(), tile=(64, 64)),
        ome_zarr(tmp_path / "a.zarr", [picture()], version="0.5"),
    ):
        with open_slide(path, apply_icc=True) as slide:
            assert slide.color_conversion == ""
            assert (slide.read_region(0, 0, 317, 203) == picture()).all()


@pytest.mark.parametrize("icc", [b"no profile at all", profile("LAB"), swapped()[:200]])
def test_damaged_profile_raises_only_if_it_is_applied(icc, tmp_path):
    path = tiff(tmp_path / "a.tif", picture(), tile=(64, 64), iccprofile=icc)
    with open_slide(path) as slide:
        slide.read_region(0, 0, 9, 9)
    with pytest.raises(SlideError, match=r"a\.tif.*ICC profile.*without its ICC profile"):
        open_slide(path, apply_icc=True)


def test_cached_tokens_depend_on_the_icc_setting(tiny_slide_file, tiny_checkpoint_file, tmp_path):
    import tifffile
    from shapely import box

    from napari_dkan.inference.predict import predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model import load_checkpoint

    pixels = np.ascontiguousarray(tifffile.imread(tiny_slide_file)[500:900, 500:900])
    path = tiff(tmp_path / "a.tif", pixels, tile=(128, 128), iccprofile=swapped())
    checkpoint, region = load_checkpoint(tiny_checkpoint_file), box(0, 0, 400, 400)
    target = target_from_region(region, checkpoint.spot_pitch_um, 0.7, 400, 400)

    def run(icc):
        with open_slide(path, apply_icc=icc) as slide:
            predictor = Predictor(slide, checkpoint, 0.7, region, "cpu", use_disk_cache=True)
            known = predictor.count_cached_spots(target)
            return predict(predictor, target, "by hand"), known

    plain, known = run(False)
    assert (plain.provenance["slide_colours"], known) == ("as stored", 0)
    changed, known = run(True)
    assert "ICC profile" in changed.provenance["slide_colours"]
    assert known == 0
    assert run(False)[1] == len(target)
    assert np.abs(plain.values - changed.values).max() > 1e-3
