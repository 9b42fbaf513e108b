"""Regions out of files: QuPath's GeoJSON in all its kinds, and mask images of any size."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_dkan.errors import SpotsError
from napari_dkan.slide.scan_area import ScanArea
from napari_dkan.spatial.masks import mask_scale, polygons_from_mask
from napari_dkan.spatial.polygons import has_too_many_crossings
from napari_dkan.spatial.region_files import read_named_regions, read_regions

OUTER = [[0, 0], [400, 0], [400, 300], [0, 300], [0, 0]]
HOLE = [[100, 100], [200, 100], [200, 200], [100, 200], [100, 100]]
BOWTIE = [[500, 0], [600, 100], [600, 0], [500, 100], [500, 0]]


def feature(kind, coordinates, about=None, **geometry):
    about = {"objectType": "annotation", "isLocked": True, **(about or {})}
    shape = {"type": kind, "coordinates": coordinates, **geometry}
    return {"type": "Feature", "id": "f-1", "geometry": shape, "properties": about}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


@pytest.fixture
def written(tmp_path):
    def write(content, name="a.geojson"):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        return path

    return write


def test_what_qupath_draws_comes_with_name_class_and_colour(written):
    tumor = {"name": "Tumor", "color": [200, 0, 0]}
    path = written(
        collection(
            feature("Polygon", [OUTER, HOLE], {"name": "gland", "classification": tumor}),
            feature("Polygon", [BOWTIE], {"classification": tumor, "color": [1, 2, 3]}),
            feature("MultiPolygon", [[HOLE]], {"classification": {"names": ["A", "B"]}}),
            feature("Polygon", [HOLE], {"classification": {"name": "S", "colorRGB": -3670016}}),
            feature("Polygon", [HOLE], {"measurements": {"Area": float("nan")}}, isEllipse=True),
            feature("LineString", [[0, 0], [9, 9]], {"name": "path"}),
            feature("MultiPoint", [[5, 5], [6, 6]]),
            {"type": "Feature", "geometry": None, "properties": {"objectType": "root"}},
            feature("Polygon", [HOLE], {"objectType": "cell"}),
        )
    )
    found = read_named_regions(path)
    assert [r.label for r in found] == ["gland (Tumor)", "Tumor", "A: B", "S", "", "path", ""]
    assert [r.color for r in found[:4]] == [(200, 0, 0), (1, 2, 3), None, (200, 0, 0)]
    assert found[0].geometry.area == 120_000 - 10_000
    assert found[1].geometry.is_valid and found[1].geometry.area == 5_000
    assert read_regions(path).area == 120_000 + 5_000  # the hole is filled by the others
    cells = written(collection(feature("Polygon", [HOLE], {"objectType": "detection"})))
    assert read_regions(cells).area == 10_000


def test_packed_files_are_read_as_plain_ones(written, tmp_path):
    content = json.dumps([feature("Polygon", [OUTER])]).encode()
    packed = written(gzip.compress(content), "a.geojson.gz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("slide.geojson", content)
    marked = written(b"\xef\xbb\xbf" + content)
    for path in (packed, tmp_path / "a.zip", marked):
        assert read_regions(path).area == 120_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[" * 100_000, "could not be read as GeoJSON"),
        (b"[" * 6_000_000, "too many points"),
        (gzip.compress(b" " * (257 << 20), 1), "too many points"),
        (b'{"type":"Polygon","coordinates":[[[0,0],[1e400,0],[1,1],[0,0]]]}', "finite"),
        (b'{"type":"Polygon","coordinates":[[[0,0],[NaN,0],[1,1],[0,0]]]}', "finite"),
        (b'{"type":"Polygon","coordinates":[[[0,0],[1e300,0],[1,1],[0,0]]]}', "beyond any slide"),
        (b'{"type":"Polygon","coordinates":[[["a",0],[1,0],[1,1],[0,0]]]}', "as GeoJSON"),
        (b'{"type":"Polygon","coordinates":{"x":1}}', "as GeoJSON"),
        (b'{"type":"Circle","coordinates":[1,1]}', "as GeoJSON"),
        (b'{"type":"Point","coordinates":[1,1]}', "no polygon"),
        (b'{"type":"Feature"}', "as GeoJSON"),
        (b"\x1f\x8bnothing", "as GeoJSON"),
        (b"PK\x03\x04nothing", "as GeoJSON"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n", "open its slide"),
    ],
)
def test_what_cannot_be_regions_is_one_sentence_and_little_memory(written, content, sentence):
    path = written(content)
    tracemalloc.start()
    try:
        with pytest.raises(SpotsError, match=sentence) as caught:
            read_regions(path)
        assert tracemalloc.get_traced_memory()[1] < 700e6
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_outlines_that_cross_a_million_times_are_refused_and_long_ones_are_not(written):
    draw = np.random.default_rng(0).uniform(0, 9e3, (20_000, 2)).round(1)
    path = written({"type": "Polygon", "coordinates": [[*draw.tolist(), draw[0].tolist()]]})
    with pytest.raises(SpotsError, match="too often"):
        read_regions(path)
    turn = np.linspace(0, 2 * np.pi, 200_000)
    wavy = (3000 + 300 * np.sin(900 * turn))[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    assert not has_too_many_crossings([shapely.Polygon(wavy)])


# ---- masks ------------------------------------------------------------------------------

masks = st.integers(1, 9).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(0, 3), min_size=columns, max_size=columns), min_size=1, max_size=9
    )
)


@given(masks, st.floats(0.5, 40), st.floats(0.5, 40))
def test_every_pixel_of_a_mask_lies_in_the_region_of_its_label_only(rows, x, y):
    image = np.array(rows, np.uint8)
    regions = polygons_from_mask(image, (x, y))
    assert sorted(regions) == sorted(set(image.ravel().tolist()) - {0})
    row, column = np.indices(image.shape)
    for label, region in regions.items():
        assert region.is_valid
        assert np.isclose(region.area, (image == label).sum() * x * y)
        inside = shapely.contains_xy(region, (column + 0.5) * x, (row + 0.5) * y)
        assert (inside == (image == label)).all()


@given(st.integers(300, 200_000), st.integers(300, 200_000), st.sampled_from([1, 2, 8, 16, 32, 3]))
def test_a_mask_shrunk_by_a_whole_number_is_placed_exactly(width, height, factor):
    for rounded in (np.floor, np.ceil):
        shape = [int(rounded(n / factor)) for n in (height, width)]
        if min(shape) >= 60 * max(factor, 4):  # smaller ones fit to several numbers
            assert mask_scale(shape, width, height) == (factor, factor)


def test_a_mask_of_another_shape_is_refused_and_a_fraction_is_not():
    x, y = mask_scale((400, 300), 750, 1000)
    assert (x, y) == (2.5, 2.5)
    with pytest.raises(SpotsError, match="proportions of the slide"):
        mask_scale((300, 400), 750, 1000)
    noise = np.random.default_rng(0).random((3000, 3000)) > 0.5
    with pytest.raises(SpotsError, match="ragged"):
        polygons_from_mask(noise)


@pytest.fixture(scope="module")
def blobs():
    """Three labels in an image of 300 x 220 pixels, one with a hole."""
    y, x = np.indices((220, 300))
    image = np.zeros((220, 300), np.uint8)
    image[np.hypot(x - 80, y - 100) < 60] = 1
    image[np.hypot(x - 80, y - 100) < 20] = 0
    image[30:90, 180:260] = 2
    image[150:, 250:] = 7
    return image


def test_a_mask_is_the_same_in_every_kind_of_file(tmp_path, blobs):
    width, height = 2400, 1760
    Image.fromarray(blobs).save(tmp_path / "gray.png")
    Image.fromarray(blobs).convert("P").save(tmp_path / "indexed.png")
    colours = np.zeros((8, 4), np.uint8)
    colours[[1, 2, 7]] = [[200, 0, 0, 255], [0, 160, 0, 255], [0, 0, 255, 255]]
    Image.fromarray(colours[blobs]).save(tmp_path / "colours.png")
    tifffile.imwrite(tmp_path / "plain.tif", blobs.astype(np.uint16), compression="zlib")
    tifffile.imwrite(tmp_path / "mask.ome.tif", blobs[None], metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(tmp_path / "levels.tif") as tiff:
        whole = blobs.repeat(16, 0).repeat(16, 1)
        tiff.write(whole, subifds=1, tile=(256, 256), compression="zlib")
        tiff.write(whole[::2, ::2], subfiletype=1, tile=(256, 256), compression="zlib")
    wanted = polygons_from_mask(blobs, (8, 8))
    union = shapely.union_all(list(wanted.values()))
    for file in ("gray.png", "indexed.png", "colours.png", "plain.tif", "mask.ome.tif"):
        region = read_regions(tmp_path / file, ScanArea.of_image(width, height))
        assert region.symmetric_difference(union).area < 1e-6
    level = read_regions(tmp_path / "levels.tif", ScanArea.of_image(width, height))
    assert level.symmetric_difference(union).area < 1e-6
    found = read_named_regions(tmp_path / "gray.png", ScanArea.of_image(width, height))
    assert [r.label for r in found] == ["label 1", "label 2", "label 7"]
    assert {
        r.color
        for r in read_named_regions(tmp_path / "colours.png", ScanArea.of_image(width, height))
    } == {
        (200, 0, 0),
        (0, 160, 0),
        (0, 0, 255),
    }


def test_pictures_fractions_and_empty_masks_are_refused_by_name(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    tifffile.imwrite(tmp_path / "chance.tif", np.random.default_rng(0).random((50, 60)))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((7, 50, 60), np.uint8))
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "empty.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:400])
    (tmp_path / "cut.tif").write_bytes((tmp_path / "stack.tif").read_bytes()[:90])
    for file, sentence in {
        "photo.png": "is a picture, not a mask",
        "chance.tif": "fractions, not labels",
        "stack.tif": "stack of images",
        "empty.png": "every pixel is 0",
        "cut.png": "could not be read as a mask",
        "cut.tif": "could not be read as a mask",
    }.items():
        with pytest.raises(SpotsError, match=sentence) as caught:
            read_regions(tmp_path / file, ScanArea.of_image(600, 500))
        assert file in str(caught.value)
