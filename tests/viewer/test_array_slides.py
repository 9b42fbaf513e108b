"""RGB images that are open in napari as slides: arrays, dask, zarr, multiscale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Points
from shapely.geometry import box

from napari_dkan.errors import SlideError
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import PixelSize, Slide, open_slide
from napari_dkan.viewer.session.slide_layer import make_slide_layer, slide_to_world
from napari_dkan.viewer.session.viewer_session import get_session

from .prediction_steps import draw, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


if TYPE_CHECKING:
    from napari_dkan.viewer.session.viewer_session import ViewerSession


UM = {"units": ("um", "um"), "axis_labels": ("y", "x")}


@pytest.fixture(scope="module")
def pixels(tiny_slide_file):
    with open_slide(tiny_slide_file) as slide:
        return slide.read_region(0, 0, slide.width, slide.height)


@pytest.fixture
def viewer(qapp):
    """Layers without a window, which would take seconds."""
    return ViewerModel()


@pytest.fixture
def session(viewer):
    return get_session(viewer)


def array_kinds(pixels):
    chunked = da.from_array(pixels, chunks=(400, 300, 3))
    stored = zarr.create_array({}, data=pixels, chunks=(256, 256, 3))
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return {
        "numpy": pixels,
        "dask": chunked,
        "zarr": stored,
        "levels": [chunked, chunked[::2, ::2], chunked[::4, ::4]],
        "rgba": np.concatenate([pixels, opaque], axis=2),
        "float": pixels / np.float32(255),
        "uint16": pixels.astype(np.uint16) * 257,
    }


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "levels", "rgba", "float", "uint16"])
def test_every_kind_of_array_has_the_pixels_of_the_file(session: ViewerSession, pixels, kind):
    data = array_kinds(pixels)[kind]
    options = {"rgb": True, "multiscale": isinstance(data, list), "scale": (0.7, 0.7), **UM}
    session.viewer.add_layer(Image(data, name="my image", **options))
    slide = session.slide
    assert slide.slide.path is None and slide.slide.label == "my image"
    assert slide.pixel_size == PixelSize(0.7, "layer's scale")
    assert len(slide.slide.levels) == (3 if kind == "levels" else 1)
    np.testing.assert_array_equal(
        slide.slide.read_region(-10, 1200, 700, 500)[:400, 10:], pixels[1200:, :690]
    )


def test_large_flat_array_gets_levels_on_demand():
    made = []

    def block(block_info=None):
        made.append(1)
        return np.full(block_info[None]["chunk-shape"], 200, np.uint8)

    huge = da.map_blocks(
        block,
        chunks=((4096,) * 10, (4096,) * 10, (3,)),
        dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )
    slide = Slide.from_arrays("huge", [huge])
    assert not made and slide.levels[-1].width <= 1024
    assert (slide.read_region(100, 100, 64, 64, 2) == 200).all()
    assert len(made) == 1  # one of a hundred chunks


def test_fingerprint_of_arrays_uses_all_pixels(pixels):
    other = pixels.copy()
    other[17, 23] ^= 255
    assert Slide.from_arrays("a", [pixels]).fingerprint() == (
        Slide.from_arrays("b", [pixels.copy()]).fingerprint()
    )
    assert Slide.from_arrays("a", [other]).fingerprint() != (
        Slide.from_arrays("a", [pixels]).fingerprint()
    )
    lazy = da.from_array(pixels, chunks=500)
    assert Slide.from_arrays("a", [lazy]).fingerprint() != (
        Slide.from_arrays("a", [255 - lazy]).fingerprint()
    )


def test_unreadable_array_raises_one_message():
    def fail(block):
        raise OSError("the drive is gone")

    broken = da.zeros((900, 900, 3), chunks=300, dtype=np.uint8).map_blocks(
        fail, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    slide = Slide.from_arrays("my image", [broken])
    for read in (slide.fingerprint, lambda: slide.read_region(0, 0, 50, 50)):
        with pytest.raises(SlideError, match=r"my image .*the drive is gone"):
            read()
    for array in (np.zeros((5, 6)), np.zeros((5, 6, 3), np.int64), np.zeros((0, 6, 3), np.uint8)):
        with pytest.raises(SlideError, match="my image cannot be used"):
            Slide.from_arrays("my image", [array])


def test_array_and_file_have_identical_predictions(tiny_slide_file, tiny_checkpoint_file, pixels):
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    with open_slide(tiny_slide_file) as slide:
        target = target_from_region(box(300, 300, 900, 900), 140, 0.7, slide.width, slide.height)
        tissue = find_tissue_region(slide, 0.7)
        wanted = predict(Predictor(slide, checkpoint, 0.7, tissue, "cpu", None, False), target)
    array = Slide.from_arrays("array", [da.from_array(pixels, chunks=512)], PixelSize(0.7, "given"))
    assert find_tissue_region(array, array.mpp).equals(tissue)
    made = predict(Predictor(array, checkpoint, array.mpp, tissue, "cpu", None, False), target)
    assert len(target) == 4 and wanted.predicted_mask.all()
    np.testing.assert_array_equal(made.values, wanted.values)
    np.testing.assert_array_equal(made.tokens, wanted.tokens)
    assert made.provenance["slide"] == "array"


def test_rgb_layer_is_a_slide(make_panel: Callable[..., PredictWidget], pixels, until):
    """Its maps and clicks follow its position on the canvas; other layers are no slides."""
    panel = make_panel()
    session, viewer = panel.session, panel.session.viewer
    session.change_settings(prefetch=False)
    gray = np.zeros((60, 80), np.uint8)
    viewer.add_image(gray, scale=(0.7, 0.7), **UM)
    viewer.add_labels(gray, scale=(0.7, 0.7), **UM)
    viewer.add_image(
        np.zeros((40, 60, 80, 3), np.uint8), rgb=True, units=["um"] * 3, axis_labels=("z", "y", "x")
    )
    assert not session.slides
    layer = viewer.add_image(
        pixels, rgb=True, name="array", scale=(0.7, 0.7), translate=(3000, -500), **UM
    )
    first = session.slide
    until(lambda: first.tissue is not None and not panel.prefetcher.busy)
    draw(panel, square(800, 800, 350))
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = session.overlays
    assert overlay.prediction.predicted_mask.all() and session.slides == [first]
    x, y = overlay.prediction.target.spots.xy[5]
    world = layer.data_to_world((y, x))[-2:]
    assert overlay.row_at(world) == 5
    np.testing.assert_allclose(slide_to_world(np.array([[x, y]]), first), [world[::-1]])
    panel.click_predictor.predict_at(x, y)
    until(lambda: session.spot is not None)
    clicked = next(o for o in session.overlays if o is not overlay)
    assert clicked.row_at(world) == 0

    layer.name = "renamed"
    assert session.slide is first and first.slide.label == "renamed"
    layer.data = pixels[::-1].copy()  # other pixels are another slide: nothing of the old is kept
    now = session.slide
    assert session.slides == [now] and now is not first and now.mpp == 0.7
    assert now.slide.fingerprint() != first.slide.fingerprint()
    assert not overlay.layer.visible and "was replaced" in panel.message_label.text()
    until(lambda: now.tissue is not None and not panel.prefetcher.busy)
    assert now.tissue.symmetric_difference(first.tissue).area > 0.1 * first.tissue.area
    viewer.layers.remove(layer)
    assert session.slide is None


def test_replaced_pixels_of_a_slide_layer_are_used(session: ViewerSession, tiny_slide_file):
    with open_slide(tiny_slide_file) as slide:
        data, options, _ = make_slide_layer(slide, slide.pixel_size)
        layer = session.viewer.add_image(data, **options)
        assert session.slide.slide is slide
        layer.data = [255 - np.asarray(data[0]), np.asarray(data[0])[::2, ::2]]
        now = session.slide.slide
        assert now is not slide and now.path is None and session.slide.mpp == 0.7
        np.testing.assert_array_equal(now.read_region(0, 0, 9, 9), 255 - data[0][:9, :9])


def test_scale_with_units_is_the_pixel_size(session: ViewerSession, pixels):
    layer = session.viewer.add_image(pixels, rgb=True, name="array")
    assert session.slide.pixel_size is None
    layer.scale = (0.5e-3, 0.5e-3)
    layer.units = ("mm", "mm")
    assert session.slide.pixel_size == PixelSize(0.5, "layer's scale")
    np.testing.assert_allclose(layer.scale, 0.5)
    assert str(layer.units[0]) == "micrometer"

    layer = session.viewer.add_image(pixels, rgb=True, scale=(0.5, 0.8), **UM)
    assert session.slide.pixel_size is None
    assert "not square" in session.slide.slide.pixel_size_note


def test_pixel_size_entered_for_an_array_is_remembered(session: ViewerSession, pixels, until):
    layer = session.viewer.add_image(pixels, rgb=True, scale=(2, 2))
    session.viewer_slides.set_mpp(0.7)
    np.testing.assert_allclose(layer.scale, 0.7)
    until(lambda: not session.viewer_slides.busy)
    session.viewer.layers.clear()
    session.viewer.add_image(pixels.copy(), rgb=True)
    until(lambda: session.slide.pixel_size == PixelSize(0.7, "entered before"))
    session.viewer_slides.reset_mpp()
    assert session.slide.pixel_size is None and str(layer.units[0]) == "micrometer"
    until(lambda: not session.viewer_slides.busy)
    session.viewer.layers.clear()
    session.viewer.add_image(pixels.copy(), rgb=True)
    until(lambda: not session.viewer_slides.busy)
    assert session.slide.pixel_size is None


def test_pixel_size_is_estimated_from_a_spot_array(session: ViewerSession, pixels):
    session.viewer.add_image(pixels, rgb=True, name="array")
    at = np.stack(np.meshgrid(range(6), range(6)), axis=-1).reshape(-1, 2)
    layer = Points(
        100 + 250.0 * at[:, ::-1], features={"array_x": at[:, 0], "array_y": at[:, 1]}, ndim=2
    )
    session.viewer.add_layer(layer)
    assert session.slide.pixel_size.origin == "spot array"
    assert session.slide.mpp == pytest.approx(0.8)
    np.testing.assert_allclose(layer.scale, 0.8)
