"""Slides by drag and drop: layers with a physical scale, messages for other files."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.settings import get_settings
from PIL import Image

from napari_dkan.errors import SlideError
from napari_dkan.viewer.plugin.file_readers import get_slide_reader, read_slides

from ..slide_files import halves, ome_zarr, picture
from .drop_files import drop


def test_slide_opens_as_a_multiscale_rgb_layer_in_micrometres(make_napari_viewer, tiny_slide_file):
    viewer = make_napari_viewer()
    (layer,) = viewer.open(tiny_slide_file, plugin="napari-dkan")
    assert layer.multiscale and layer.rgb
    assert layer.name == "drawn"
    np.testing.assert_allclose(layer.scale, 0.7)
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    assert layer.axis_labels == ("y", "x")


def test_slide_without_pixel_size_opens_in_pixels(make_napari_viewer, tmp_path):
    file = tmp_path / "plain.png"
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(file)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(file, plugin="napari-dkan")
    np.testing.assert_allclose(layer.scale, 1)
    assert [str(u) for u in layer.units] == ["pixel", "pixel"]


def test_real_section_svs_and_pyramid_open(make_napari_viewer, data_dir):
    viewer = make_napari_viewer()
    (svs,) = viewer.open(data_dir / "wsi/CMU-1-Small-Region.svs", plugin="napari-dkan")
    np.testing.assert_allclose(svs.scale, 0.499)
    (crop,) = viewer.open(data_dir / "her2st/crop/C3_crop.ome.tif", plugin="napari-dkan")
    np.testing.assert_allclose(crop.scale, 0.6874, rtol=1e-3)


def test_file_that_is_no_slide_is_rejected(tmp_path):
    file = tmp_path / "notes.tif"
    file.write_text("nothing to see")
    with pytest.raises(SlideError, match=r"notes\.tif"):
        get_slide_reader(str(file))(str(file))


def test_stack_of_files_is_left_to_other_readers():
    assert get_slide_reader(["a.tif", "b.tif"]) is None
    assert get_slide_reader(["a.tif"]) is read_slides


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_folder_opens_and_other_folders_are_ignored(make_napari_viewer, tmp_path, version):
    folder = ome_zarr(tmp_path / "slide.zarr", halves(picture(), 2), version=version)
    viewer = make_napari_viewer()
    (layer,) = viewer.open(folder, plugin="napari-dkan")
    assert layer.rgb and layer.data[0].shape == picture().shape
    (tmp_path / "stack.zarr").mkdir()
    assert get_slide_reader(str(tmp_path / "stack.zarr")) is None


def test_napari_does_not_ask_while_the_panel_is_open(
    make_panel, tiny_slide_file, tmp_path, monkeypatch
):
    """A slide is opened at once; what is none, and what the user has decided, is left to napari."""
    asked = []
    monkeypatch.setattr(
        "napari._qt.qt_viewer.handle_gui_reading", lambda paths, *a, **k: asked.append(paths)
    )
    panel = make_panel(show=True)
    viewer, chosen = panel.session.viewer, get_settings().plugins
    scores, photo = tmp_path / "scores.tif", tmp_path / "photo.jpg"
    tifffile.imwrite(scores, np.linspace(0, 1, 90_000, dtype=np.float32).reshape(300, 300))
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(photo)
    drop(viewer, tiny_slide_file, remembered=False)
    assert [layer.name for layer in viewer.layers] == ["drawn"] and not asked
    drop(viewer, photo, scores, remembered=False)
    assert [layer.name for layer in viewer.layers] == ["drawn", "photo"]
    assert asked == [[str(scores)]] and "scores.tif" in panel.message_label.text()
    chosen.extension2reader = {"*.jpg": "napari"}
    drop(viewer, photo, remembered=False)
    assert viewer.layers[-1].source.reader_plugin == "napari" and len(asked) == 1
    panel.close()
    drop(viewer, tiny_slide_file, remembered=False)
    assert asked[1:] == [[str(tiny_slide_file)]]
