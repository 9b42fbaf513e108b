"""Results leave the window and come back to another one as they were."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from shapely.geometry import Polygon, box

from napari_dkan.errors import OutputError
from napari_dkan.export.export_formats import write_result
from napari_dkan.export.result_reader import load_result
from napari_dkan.export.saved_result import (
    SavedReliability,
    SavedResult,
    SlideRecord,
    ViewSettings,
    save_result,
)
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.predict import predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide
from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.jobs.target_from_layers import region_from_layer
from napari_dkan.viewer.panels.results.restore_result import THUMBNAIL_KEY
from napari_dkan.viewer.panels.results.results_controller import ResultsController
from napari_dkan.viewer.plugin.file_readers import get_measured_reader as measured_reader
from napari_dkan.viewer.plugin.file_readers import get_result_reader
from napari_dkan.viewer.session.viewer_session import get_session
from napari_dkan.viewer.session.viewer_settings import ContrastLimits

from .prediction_steps import draw, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.session.viewer_session import ViewerSession


@pytest.fixture(autouse=True)
def no_prefetching(monkeypatch):
    """These tests never click where something could have been computed before."""
    monkeypatch.setattr("napari_dkan.viewer.jobs.prefetcher.is_on_battery", lambda: True)


@pytest.fixture
def set_known_checkpoints(monkeypatch):
    """Gives the checkpoints that can be found again."""

    def set_files(*files):
        monkeypatch.setattr(
            "napari_dkan.viewer.panels.results.restore_result.list_bundled_checkpoints",
            lambda: list(files),
        )

    return set_files


@pytest.fixture
def slide_here(tmp_path, tiny_slide_file):
    """A copy of the small slide that can be moved about."""
    folder = tmp_path / "slides"
    folder.mkdir()
    return shutil.copy(tiny_slide_file, folder / "drawn.ome.tif")


@pytest.fixture
def mapped(make_panel: Callable[..., PredictWidget], slide_here, until):
    """A panel with a map in a region, judged, and looked at in a way of its own."""
    panel = make_panel()
    session = panel.session
    session.viewer.open(slide_here, plugin="napari-dkan")
    until(lambda: session.slide is not None and session.slide.tissue is not None)
    place = session.slide.tissue.representative_point()
    draw(panel, square(place.x, place.y, 400), square(place.x, place.y, 150))
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = session.overlays
    count = len(overlay.prediction.target)
    score = np.linspace(0, 1, count, dtype=np.float32)
    said = tuple(("out of focus",) if s < 0.1 else () for s in score)
    overlay.reference = SavedReliability(score, score < 0.1, said)
    session.set_gene("KRT8")
    session.set_pinned("ERBB2", pinned=False)
    session.change_settings(
        contrast_limits=ContrastLimits((0.25, 2.5)), colormap="cividis", opacity=0.4
    )
    overlay.layer.opacity = 0.4
    session.overlays_changed.emit()
    camera = session.viewer.scene.camera
    camera.center, camera.zoom = (0, 310.0, 402.0), 1.7
    return panel


def wait_for_message(panel: PredictWidget, until):
    until(lambda: not panel.results.busy)
    return panel.results.message


def save(panel: PredictWidget, until, path):
    panel.results.save_result(path)
    said = wait_for_message(panel, until)
    assert f"{path.name} is saved" in said and not panel.results.message_is_warning, said
    return path


def describe_view(session: ViewerSession):
    """All that the canvas shows of the maps and how."""
    found = {}
    for layer in session.viewer.layers:
        if layer.name.startswith(("KRT8 predicted", "unreliable")):
            kind = layer.name.partition(",")[0]
            found[kind] = {
                "data": np.asarray(layer.data),
                "scale": layer.scale,
                "translate": layer.translate,
                "opacity": layer.opacity,
                "limits": layer.contrast_limits,
                "colormap": layer.colormap.name,
                "visible": layer.visible,
            }
    camera = session.viewer.scene.camera
    found["camera"] = {"centre": camera.center[-2:], "zoom": camera.zoom}
    chosen = session.settings
    found["chosen"] = {
        "gene": session.gene,
        "pinned": session.pinned,
        "limits": chosen.contrast_limits,
    }
    found["settings"] = {n: getattr(chosen, n) for n in ("colormap", "opacity", "hatch_unreliable")}
    return found


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


def test_result_is_restored_in_another_window(
    mapped: PredictWidget,
    make_napari_viewer,
    tmp_path,
    tiny_checkpoint_file,
    set_known_checkpoints,
    until,
):
    file = save(mapped, until, tmp_path / "a map.h5ad")
    (before,) = mapped.session.overlays
    regions = mapped.target_box.regions_layer()
    there = describe_view(mapped.session)
    set_known_checkpoints(tiny_checkpoint_file)
    viewer = make_napari_viewer()
    viewer.open(file, plugin="napari-dkan")  # which opens the panel
    session = get_session(viewer)
    until(lambda: bool(session.overlays))
    (panel,) = [w for n, w in viewer.window.dock_widgets.items() if n.startswith("DKAN: predict")]
    until(lambda: not panel.results.busy)
    assert panel.session is session
    (overlay,) = session.overlays
    one, two = before.prediction, overlay.prediction
    for name in ("values", "tokens", "qc_features", "failed_mask"):
        mine, its = getattr(one, name), getattr(two, name)
        if name == "values":  # the file has those too that nobody has looked at
            mine = np.where(np.isfinite(mine), mine, its)
            assert np.isfinite(its).all()
        assert mine.tobytes() == its.tobytes(), name
    np.testing.assert_array_equal(one.target.grid.cells, two.target.grid.cells)
    np.testing.assert_array_equal(one.target.spots.xy, two.target.spots.xy)
    assert one.panel == two.panel and one.provenance == two.provenance
    assert session.checkpoint.sha256 == one.provenance["checkpoint_sha256"]
    assert_same(there, describe_view(session))
    assert session.slide.slide.fingerprint() == mapped.session.slide.slide.fingerprint()
    assert viewer.layers[0].name == "drawn"
    (shapes,) = [layer for layer in viewer.layers if layer.name == "regions"]
    np.testing.assert_allclose(
        sum(Polygon(swap_xy(d)).area for d in shapes.data),
        sum(Polygon(swap_xy(d)).area for d in regions.data),
    )
    assert (
        "by Random numbers for tests" in panel.results.message
        and not panel.results.message_is_warning
    )
    x, y = two.target.spots.xy[0]
    panel.click_predictor.predict_at(x, y)  # what it was predicted with goes on
    until(lambda: session.spot is not None)
    again = save(panel, until, tmp_path / "again.h5ad")
    assert load_result(again).prediction.values.tobytes() == two.values.tobytes()
    panel.shut_down()


@pytest.fixture
def file_without_slide(tmp_path, slide_here, tiny_checkpoint_file):
    """A result as the command line writes it, whose slide then moves away."""
    checkpoint, slide = load_checkpoint(tiny_checkpoint_file), open_slide(slide_here)
    region = box(200, 200, 1000, 800)
    target = target_from_region(region, checkpoint.spot_pitch_um, 0.7, slide.width, slide.height)
    prediction = predict(Predictor(slide, checkpoint, 0.7, region, use_disk_cache=False), target)
    score = np.linspace(0, 1, len(target), dtype=np.float32)
    said = tuple(("out of focus",) if s < 0.1 else () for s in score)
    about = SlideRecord.from_slide(slide, 0.7, "OME metadata")
    judged, view = SavedReliability(score, score < 0.1, said), ViewSettings("KRT8")
    save_result(
        tmp_path / "alone.h5ad", SavedResult(prediction, about, {}, judged, region, view), slide
    )
    slide.close()
    return tmp_path / "alone.h5ad"


def test_result_without_slide_and_checkpoint(
    make_panel: Callable[..., PredictWidget],
    file_without_slide,
    tmp_path,
    rival_file,
    set_known_checkpoints,
    slide_here,
    until,
):
    file = file_without_slide
    elsewhere = tmp_path / "elsewhere.tif"
    shutil.move(slide_here, elsewhere)
    set_known_checkpoints(rival_file)
    panel = make_panel()
    others = Panel.from_symbols([f"OTHER{i}" for i in range(6)])
    panel.session.set_checkpoint(replace(load_checkpoint(rival_file), panel=others))
    session, viewer = panel.session, panel.session.viewer
    panel.results.open_result(file)
    said = wait_for_message(panel, until)
    assert "checkpoint" in said and "is not here" in said and "Locate slide" in said
    assert panel.results_box.locate_button.isVisibleTo(panel) and session.slide is None
    (overlay,) = session.overlays
    assert overlay.layer.name == "KRT8 predicted, alone"
    (picture,) = [layer for layer in viewer.layers if THUMBNAIL_KEY in layer.metadata]
    assert viewer.layers.index(picture) == 0

    prediction = overlay.prediction
    x, y = prediction.target.spots.xy[0] * 0.7
    event = SimpleNamespace(button=1, pos=(5, 5), position=(y, x), type="mouse_press")
    click = panel.click_predictor._on_mouse_press(viewer, event)
    next(click)
    event.type = "mouse_release"
    assert next(click, None) is None
    np.testing.assert_array_equal(session.spot.values[0], prediction.values[0])
    assert "reliability: poor (out of focus)" in panel.spot_box.position_label.text()
    panel.spot_box.sort_combo.setCurrentText("most above average")
    panel.spot_box.refresh()  # unknown of this checkpoint: by value
    session.step_gene(1)
    assert session.gene == "MALAT1" and set(others.symbols) < set(session.gene_panel.symbols)

    panel.results.save_figure(tmp_path / "figure.svg")  # over the small image in the file
    assert wait_for_message(panel, until) == "figure.svg is written."
    assert f"{session.gene} - predicted" in (tmp_path / "figure.svg").read_text()
    panel.results.locate_slide(file)
    assert (
        "is not the slide drawn" in wait_for_message(panel, until)
        and panel.results.message_is_warning
    )
    panel.results.locate_slide(elsewhere)
    assert "is the slide of" in wait_for_message(panel, until)
    assert picture not in viewer.layers and session.slide.mpp == 0.7
    assert viewer.layers.index(session.slide.layer) == 0
    np.testing.assert_allclose(overlay.layer.tile_scale, 140)
    assert not panel.results_box.locate_button.isVisibleTo(panel)
    panel.lens.set_active(True)  # has nothing to show of a gene that only the file has
    panel.lens.set_active(False)
    session.set_gene("OTHER3")
    assert panel.display.shown_overlays() == []
    session.viewer_slides.set_mpp(1.4)  # it lies on the slide now
    np.testing.assert_allclose(overlay.layer.tile_scale, 280)


def test_failures_are_shown_in_the_panel(
    make_panel: Callable[..., PredictWidget], tmp_path, until, tiny_checkpoint_file
):
    panel = make_panel()
    box = panel.results_box
    assert (
        not box.save_button.isEnabled()
        and not box.figure_button.isEnabled()
        and box.open_button.isEnabled()
    )
    panel.results.save_result(tmp_path / "nothing.h5ad")
    assert "no predicted map yet" in box.status_label.text() and panel.results.message_is_warning
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for wrong in (cut, tmp_path / "gone.h5ad", tiny_checkpoint_file):
        panel.results.open_result(wrong)
        assert wrong.name in wait_for_message(panel, until) and panel.results.message_is_warning
    assert box.status_label.text() == panel.results.message and not panel.session.overlays


def test_several_maps_of_a_slide_are_saved_or_one_is_chosen(
    mapped: PredictWidget, until, tmp_path, monkeypatch
):
    session, results_box = mapped.session, mapped.results_box
    (coarse,) = session.overlays
    slide, size = session.slide, (session.slide.slide.width, session.slide.slide.height)
    pitch = coarse.prediction.target.grid.pitch_um
    region = region_from_layer(mapped.target_box.regions_layer(), slide)
    mapped.prediction_jobs.predict(target_from_region(region, pitch * 2, slide.mpp, *size))
    finish(mapped, until)
    fine, wide = (len(o.prediction.target) for o in session.overlays)
    asked = "napari_dkan.viewer.panels.results.results_box.QFileDialog.getSaveFileName"
    monkeypatch.setattr(asked, lambda *a: (str(tmp_path / "maps.h5ad"), ""))
    for titles, count in ((f"{fine} tiles, {pitch:.0f} um apart", 1), ("All 2 maps", 2)):
        QTest.mouseClick(results_box.save_button, Qt.MouseButton.LeftButton)
        until(results_box.maps_menu.isVisible)
        (choice,) = (a for a in results_box.maps_menu.actions() if a.text().startswith(titles))
        place = results_box.maps_menu.actionGeometry(choice).center()
        QTest.mouseClick(results_box.maps_menu, Qt.MouseButton.LeftButton, pos=place)
        said = wait_for_message(mapped, until)
        assert said.count("is saved") == count and not mapped.results.message_is_warning
    found = [len(load_result(tmp_path / f"maps{i}.h5ad").prediction.target) for i in ("", -1, -2)]
    assert found == [fine, wide, fine]  # the newest first, as nothing is selected
    mapped.results.save_result(tmp_path / "maps.h5ad", session.overlays)
    assert "maps-1.h5ad is there already" in mapped.results.message

    def write(path, result):
        if path.stem == "more-2":
            raise OutputError("The disk is full.")
        write_result(path, result)

    monkeypatch.setattr("napari_dkan.export.export_formats.write_result", write)
    mapped.results.save_result(tmp_path / "more.h5ad", session.overlays)
    saved, failed = wait_for_message(mapped, until).splitlines()
    assert saved.startswith("more-1.h5ad is saved") and mapped.results.message_is_warning
    assert failed == "more-2.h5ad is not saved: The disk is full."


def test_figure_shows_the_canvas_and_napari_saves_layers(
    mapped: PredictWidget, tmp_path, until, monkeypatch, measured_file
):
    drawn = []
    monkeypatch.setattr(
        "napari_dkan.export.figure_rendering.write_figure",
        lambda path, content: drawn.append(content),
    )
    session, viewer = mapped.session, mapped.session.viewer
    (overlay,) = session.overlays
    until(lambda: not mapped.results._import_runner.busy)
    loaded = []
    monkeypatch.setattr(
        "napari_dkan.export.figure_rendering.load_matplotlib", lambda: loaded.append("once")
    )
    another = ResultsController(session)
    session.overlays_changed.emit()  # there is a map
    until(lambda: loaded == ["once"])
    another.close()
    mapped.results.save_figure(tmp_path / "view.png")
    wait_for_message(mapped, until)
    (content,) = drawn
    height, width = viewer.canvas.size
    np.testing.assert_allclose(content.extent.left, 402 - width / 1.7 / 2)
    np.testing.assert_allclose(content.extent.bottom, 310 + height / 1.7 / 2)
    assert content.legend.gene == "KRT8" and content.legend.limits == (0.25, 2.5)
    assert content.opacity == 0.4 and content.regions is not None and content.histology is not None
    (heat,) = content.heatmaps
    np.testing.assert_array_equal(heat.values, overlay.layer.tiles)
    left, top = heat.extent.left, heat.extent.top
    np.testing.assert_allclose(overlay.layer.tile_translate, (top + 70, left + 70))
    colours = overlay.layer.colormap.map(np.array([0.0, 1.0]))
    np.testing.assert_allclose(content.legend.colors[[0, -1]], colours)
    assert 0 < len(content.unreliable_boxes) < len(overlay.prediction.target)
    overlay.layer.visible = False
    mapped.results.save_figure(tmp_path / "view.png")
    assert "is visible" in mapped.results.message and mapped.results.message_is_warning
    overlay.layer.visible = True

    asked = "napari_dkan.viewer.panels.results.results_box.QFileDialog.getSaveFileName"
    monkeypatch.setattr(asked, lambda *a: (str(tmp_path / "typed"), "Drawing (*.svg)"))
    mapped.results_box.figure_button.click()
    assert wait_for_message(mapped, until) == "typed.svg is written."
    for name in ("typed.h5ad is saved", "typed.h5ad is there already"):
        mapped.results_box.save_button.click()
        assert name in wait_for_message(mapped, until)

    finished = overlay.prediction.predicted_mask
    overlay.prediction.tokens[-2:] = np.nan  # as if it was cancelled
    viewer.layers.selection = {overlay.layer, mapped.target_box.regions_layer()}
    for name in ("map.h5ad", "map.geojson"):
        assert viewer.layers.save(tmp_path / name, selected=True, plugin="napari-dkan")
    saved = load_result(tmp_path / "map.h5ad")
    assert (
        len(saved.prediction.target) == finished.sum() - 2 and saved.prediction.predicted_mask.all()
    )
    assert np.isfinite(saved.prediction.values).all()  # of genes nobody has looked at, too
    assert saved.regions.area > 0 and saved.view_settings.gene == "KRT8"
    features = json.loads((tmp_path / "map.geojson").read_text())["features"]
    assert len(features) >= len(saved.prediction.target)
    viewer.layers.selection = {session.slide.layer}
    with pytest.raises(OutputError, match="None of these layers"):
        viewer.layers.save(tmp_path / "no.h5ad", selected=True, plugin="napari-dkan")
    assert not (tmp_path / "no.h5ad").exists()
    ours, theirs = str(tmp_path / "map.h5ad"), str(measured_file)
    assert get_result_reader(ours) is not None and get_result_reader(theirs) is None
    assert measured_reader(ours) is None and measured_reader(theirs) is not None
