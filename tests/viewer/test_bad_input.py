"""Bad input shows one sentence in the panel and leaves nothing incomplete."""

from __future__ import annotations

import json
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_dkan.errors import SlideError
from napari_dkan.viewer.plugin.file_readers import read_slides
from napari_dkan.viewer.session.viewer_settings import TargetMode

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def get_warning(panel: PredictWidget):
    """Return the displayed warning, which must be readable for a user."""
    text = panel.message_label.text()
    assert (
        panel.session.message.is_warning
        and text
        and "Traceback" not in text
        and "Error(" not in text
    )
    return text


def write_png(folder, name="plain.png"):
    """Stripes in H&E colours without a pixel size."""
    image = np.full((900, 900, 3), 240, np.uint8)
    image[200:700, 200:700] = np.random.default_rng(0).integers(80, 200, (500, 500, 3))
    file = folder / name
    Image.fromarray(image).save(file)
    return file


def test_missing_pixel_size_is_asked_for_once(make_panel: Callable[..., PredictWidget], tmp_path):
    panel = make_panel()
    file = write_png(tmp_path)
    panel.session.viewer.open(file, plugin="napari-dkan")
    assert "does not state its pixel size" in panel.slide_box.pixel_size_label.text()
    assert panel.slide_box.apply_button.isVisibleTo(panel.slide_box)
    panel.target_box.update_plan()
    assert not panel.target_box.predict_button.isEnabled()
    panel.click_predictor.predict_at(400, 400)
    assert "pixel size" in get_warning(panel)

    for absurd in (0.0, 0.01, 25.0):
        panel.slide_box.pixel_size_field.setValue(absurd)
        panel.slide_box.apply_button.click()
        assert "0.05" in get_warning(panel) and panel.session.slide.pixel_size is None
    panel.slide_box.pixel_size_field.setValue(0.5)
    panel.slide_box.apply_button.click()
    assert panel.session.slide.pixel_size.mpp == 0.5
    assert "0.5 um/px, entered by hand" in panel.slide_box.pixel_size_label.text()
    np.testing.assert_allclose(panel.session.slide.layer.scale, 0.5)

    (data,) = read_slides(str(file))  # the next time it is known
    assert data[1]["scale"] == (0.5, 0.5)


def edit_checkpoint(good, change):
    """A checkpoint file whose tensors and header were changed by ``change``."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(good, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["napari_dkan"])
    change(tensors, header)
    return save(tensors, {"napari_dkan": json.dumps(header)})


EDITS = {
    "missing tensor": lambda tensors, header: tensors.pop("head.weight"),
    "misshapen tensor": lambda tensors, header: tensors.update(
        {"head.weight": tensors["head.weight"][:, :3].contiguous()}
    ),
    "newer version": lambda tensors, header: header.update(format=99),
    "other panel": lambda tensors, header: header["panel"].pop(),
}


@pytest.mark.parametrize("kind", ["garbage", "pickle", "truncated", "missing", "empty", *EDITS])
def test_bad_checkpoint_is_not_used(
    panel: PredictWidget, kind, tmp_path, tiny_checkpoint_file, until
):
    file = tmp_path / "bad.safetensors"
    good = tiny_checkpoint_file.read_bytes()
    content = {
        "garbage": b"this is no checkpoint" * 100,
        "pickle": pickle.dumps({"state_dict": {}}),
        "truncated": good[: len(good) // 2],
        "empty": b"",
    }
    if kind in EDITS:
        file.write_bytes(edit_checkpoint(tiny_checkpoint_file, EDITS[kind]))
    elif kind in content:
        file.write_bytes(content[kind])
    before = panel.session.checkpoint
    panel.model_box.load(file)
    until(lambda: panel.session.message.is_warning)
    assert "bad.safetensors" in get_warning(panel)
    assert panel.session.checkpoint is before
    assert panel.model_box.summary_label.text().startswith("6 genes")


def test_slide_removed_during_a_job(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, tmp_path, until, monkeypatch
):
    copy = tmp_path / "stick.ome.tif"
    shutil.copy(tiny_slide_file, copy)
    panel = make_panel()
    panel.session.viewer.open(copy, plugin="napari-dkan")
    until(lambda: panel.session.slide.tissue is not None and not panel.prefetcher.busy)
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    predictor.batch_sizes.limit(1)  # so that much is left to do
    stream = predictor.stream

    def stream_until_removed(target, order=None, *rest):
        for update in stream(target, order, *rest):
            yield update
            if order is not None:  # the map itself, not the rough one before it
                copy.unlink(missing_ok=True)

    monkeypatch.setattr(predictor, "stream", stream_until_removed)
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    text = get_warning(panel)
    assert "stick.ome.tif" in text and "finished tiles are kept" in text
    assert panel.session.overlays[0].prediction.predicted_mask.any()
    panel.session.viewer.layers.clear()


def test_clicks_off_the_slide_and_off_the_tissue(panel: PredictWidget, until):
    panel.click_predictor.predict_at(-5, 10)
    assert "beside the slide" in get_warning(panel)
    panel.session.message.show("")
    panel.click_predictor.predict_at(3, 3)
    until(lambda: not panel.click_predictor.busy)
    assert "no tissue under that click" in get_warning(panel)
    panel.session.change_settings(tissue_only=False)
    panel.click_predictor.predict_at(3, 3)
    until(lambda: panel.session.spot is not None)


def test_region_without_tissue_and_no_region(panel: PredictWidget):
    panel.target_box.mode_buttons[TargetMode.REGION].click()
    panel.target_box.update_plan()
    assert "Draw Region 1 on the slide" in panel.target_box.plan_label.text()
    draw(panel, square(20, 20, 15))
    assert "no tissue in this region" in panel.target_box.plan_label.text()
    panel.target_box.start_prediction()
    assert "no tissue in this region" in get_warning(panel) and not panel.prediction_jobs.busy


def test_spots_outside_the_slide(panel: PredictWidget):
    panel.session.viewer.add_points([[1e6, 5], [10, 10]], scale=(0.7, 0.7), units="um")
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert "1 of 2 spots lie outside the slide" in panel.target_box.plan_label.text()


def test_no_points_layer(panel: PredictWidget):
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert "Add a Points layer" in panel.target_box.plan_label.text()


@pytest.mark.parametrize(
    "name", ["notes.txt.tif", "cut.tif", "cut_inside.tif", "empty.svs", "nothing.png"]
)
def test_bad_slides_are_refused_and_leave_no_layer(
    make_napari_viewer, tiny_slide_file, tmp_path, name
):
    whole = tiny_slide_file.read_bytes()
    content = {
        "notes.txt.tif": b"not a slide",
        "cut.tif": whole[:100],
        "cut_inside.tif": whole[: len(whole) // 2],
        "empty.svs": b"",
        "nothing.png": b"\x89PNG\r\n\x1a\n",
    }
    (tmp_path / name).write_bytes(content[name])
    viewer = make_napari_viewer()
    with pytest.raises(SlideError, match=name.replace(".", r"\.")):
        viewer.open(tmp_path / name, plugin="napari-dkan")
    assert not viewer.layers


def test_truncated_svs_is_refused(make_napari_viewer, data_dir, tmp_path):
    file = tmp_path / "cut.svs"
    file.write_bytes((data_dir / "wsi/CMU-1-Small-Region.svs").read_bytes()[:900_000])
    viewer = make_napari_viewer()
    with pytest.raises(SlideError, match=r"cut\.svs"):
        viewer.open(file, plugin="napari-dkan")
    assert not viewer.layers


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "1", "P"])
def test_other_pixel_types_open_or_are_refused(make_napari_viewer, tmp_path, mode):
    file = tmp_path / f"odd_{mode[0]}.png"
    Image.fromarray(np.full((64, 80), 128, np.uint8)).convert("L").convert(
        "I;16" if mode == "I;16" else mode
    ).save(file)
    (layer,) = make_napari_viewer().open(file, plugin="napari-dkan")
    assert layer.rgb and np.asarray(layer.data[0]).shape == (64, 80, 3)


def test_unexpected_error_ends_only_the_job(panel: PredictWidget, middle, until, monkeypatch):
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)

    def broken(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(predictor.network, "fuse_tokens", broken)
    panel.click_predictor.predict_at(*middle)
    until(lambda: not panel.click_predictor.busy)
    assert "please report it" in panel.message_label.text()
    monkeypatch.undo()
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
