"""Slides that are open in other ways: other readers, two slides; names in menus."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Points
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QMenu

from napari_dkan.slide.lazy_level import LazyLevel
from napari_dkan.viewer.session.foreign_slides import find_foreign_slides
from napari_dkan.viewer.session.slide_arrangement import overlap, slide_bounds
from napari_dkan.viewer.session.viewer_session import get_session

from .prediction_steps import draw, finish, square

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qtpy.QtGui import QAction


def menu_actions(menu: QMenu) -> Iterator[QAction]:
    """All actions of a menu and its submenus, as they are when it is shown."""
    menu.aboutToShow.emit()
    for action in menu.actions():
        yield action
        inner = action.menu()
        if isinstance(inner, QMenu):
            yield from menu_actions(inner)


def test_names_in_menus_are_shown_as_they_are_written(make_panel) -> None:
    """Qt takes the letter after an ampersand as a shortcut and hides the ampersand."""
    bar = make_panel().session.viewer.window._qt_window.menuBar()
    texts = {
        action.text()
        for top in bar.actions()
        if isinstance(top.menu(), QMenu)
        for action in menu_actions(top.menu())
    }
    ours = {text for text in texts if "dkan" in text.lower() or "section" in text.lower()}
    assert "DKAN: predict" in "".join(ours)
    assert any("napari-dkan" in text for text in ours), ours
    assert {text for text in ours if "&" in text.replace("&&", "")} == set()


def write_tiff(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (300, 500, 3), np.uint8)


MPP = 0.5
RESOLUTION = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}


def foreign_file(kind: str, folder: Path, pixels: np.ndarray) -> Path:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if kind == "tiff":
        return write_tiff(folder / "s.tif", pixels, photometric="rgb", **RESOLUTION)
    if kind == "planes":
        return write_tiff(
            folder / "s.tif", planes, photometric="rgb", planarconfig="separate", **RESOLUTION
        )
    if kind == "ome":
        size = {"PhysicalSizeX": MPP, "PhysicalSizeXUnit": "µm"}
        size |= {"PhysicalSizeY": MPP, "PhysicalSizeYUnit": "µm"}
        return write_tiff(
            folder / "s.ome.tif", pixels, photometric="rgb", metadata={"axes": "YXS", **size}
        )
    path = folder / f"s.{kind}"
    iio.imwrite(path, pixels)
    return path


KINDS = ["tiff", "planes", "ome", "png"]


def view_on_slide(viewer: ViewerModel, layer: Image) -> tuple[list[float], float]:
    """Middle of the canvas in level-0 px (y, x), and canvas pixels per level-0 px."""
    center = layer.world_to_data(viewer.scene.camera.center[-2:])
    return list(center[-2:]), viewer.scene.camera.zoom * float(layer.scale[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_slide_of_another_reader_is_reopened_as_a_pyramid(
    make_panel, tmp_path, pixels, kind, qtbot
) -> None:
    panel = make_panel()
    session, viewer = panel.session, panel.session.viewer
    session.change_settings(prefetch=False)
    assert not panel.reopen_box.isVisibleTo(panel)
    file = foreign_file(kind, tmp_path, pixels)
    (old,) = viewer.open(file, plugin="napari")
    assert panel.reopen_box.isVisibleTo(panel) and "another reader" in (
        panel.reopen_box.notice_label.text()
    )
    old.name = "my name"
    viewer.scene.camera.center = old.data_to_world((*[0] * (old.ndim - 2), 100, 350))
    viewer.scene.camera.zoom = 7 / float(old.scale[-1])
    before = view_on_slide(viewer, old)
    qtbot.mouseClick(panel.reopen_box.reopen_button, Qt.MouseButton.LeftButton)

    (layer,) = viewer.layers
    assert layer is not old and layer.multiscale and layer.rgb and layer.name == "my name"
    (slide,) = session.slides
    assert session.slide is slide and slide.layer is layer and slide.slide.path == file
    assert isinstance(layer.data[0], LazyLevel) and layer.ndim == 2
    np.testing.assert_array_equal(np.asarray(layer.data[0]), pixels)
    assert slide.pixel_size == (None if kind == "png" else slide.slide.pixel_size)
    np.testing.assert_allclose(layer.scale, 1 if kind == "png" else MPP, rtol=1e-4)
    after = view_on_slide(viewer, layer)
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    assert after[1] == pytest.approx(before[1])
    assert not panel.reopen_box.isVisibleTo(panel)
    assert panel.slide_box.summarize().split(", ")[0] == "my name"


@pytest.mark.parametrize("kind", KINDS)
def test_view_stays_when_the_panel_is_opened_later(tmp_path, pixels, kind, qapp) -> None:
    viewer = ViewerModel()
    (old,) = viewer.open(foreign_file(kind, tmp_path, pixels), plugin="napari")
    drawn = viewer.add_points([[100.0, 350.0]], ndim=2)  # on a pixel of the slide
    viewer.scene.camera.center = old.data_to_world((*[0] * (old.ndim - 2), 100, 350))
    viewer.scene.camera.zoom = 7
    session = get_session(viewer)
    (foreign,) = find_foreign_slides(viewer.layers)
    session.viewer_slides.reopen(foreign)
    layer = session.slide.layer
    assert list(viewer.layers) == [layer, drawn]
    center, zoom = view_on_slide(viewer, layer)
    np.testing.assert_allclose(center, (100, 350), atol=1e-6)
    assert zoom == pytest.approx(7)
    np.testing.assert_allclose(drawn.data_to_world((100, 350)), layer.data_to_world((100, 350)))


def test_what_lies_on_a_slide_stays_there_when_it_is_reopened(
    make_panel, tiny_slide_file, until
) -> None:
    panel = make_panel()
    session, viewer = panel.session, panel.session.viewer
    viewer.open(tiny_slide_file, plugin="napari")
    first = session.slide
    until(lambda: first.tissue is not None and not panel.prefetcher.busy)
    draw(panel, square(800, 800, 350))
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = session.overlays
    x, y = overlay.prediction.target.spots.xy[3]
    panel.reopen_box.reopen()
    assert session.slide is first and first.layer in viewer.layers and first.layer.multiscale
    assert session.overlays == [overlay] and overlay.layer.visible
    assert overlay.row_at(first.layer.data_to_world((y, x))[-2:]) == 3
    session.viewer_slides.set_mpp(1.4)  # the layers still follow the slide
    assert overlay.row_at(first.layer.data_to_world((y, x))[-2:]) == 3
    viewer.layers.remove(first.layer)
    assert session.slide is None


def test_images_that_are_no_slides_are_not_offered(make_panel, tmp_path, pixels) -> None:
    panel = make_panel()
    viewer = panel.session.viewer
    viewer.open(write_tiff(tmp_path / "mask.tif", pixels[..., 0]), plugin="napari")
    stack = np.zeros((5, 300, 500), np.uint8)  # the viewer has three dimensions from here on
    viewer.open(write_tiff(tmp_path / "stack.tif", stack), plugin="napari")
    viewer.add_image(pixels, rgb=True)
    (changed,) = viewer.open(foreign_file("tiff", tmp_path, pixels), plugin="napari")
    assert panel.reopen_box.isVisibleTo(panel)
    changed.data = 255 - changed.data  # reopening would throw this away
    panel.reopen_box.refresh()
    assert not panel.reopen_box.isVisibleTo(panel)


@pytest.mark.parametrize("reader", ["napari-dkan", "napari"])
def test_second_slide_lies_beside_the_first(make_panel, tmp_path, pixels, reader) -> None:
    panel = make_panel()
    session, viewer = panel.session, panel.session.viewer
    session.change_settings(prefetch=False)
    files = []
    for name in "abc":
        (tmp_path / name).mkdir()
        files.append(foreign_file("tiff", tmp_path / name, pixels))
    for number, file in enumerate(files):
        viewer.open(file, plugin=reader)
        assert len(session.slides) == number + 1
        y, x = viewer.scene.camera.center[-2:]
        (left, top), (right, bottom) = slide_bounds(session.slide)
        assert left < x < right and top < y < bottom  # the camera looks at the new one
        assert x == pytest.approx((left + right) / 2, rel=0.01)
        viewer.scene.camera.center = (0, y / 2, x + 20)
        viewer.scene.camera.zoom *= 3
    first, second, third = session.slides
    assert not any(overlap(*pair) for pair in combinations(session.slides, 2))
    assert slide_bounds(first)[0, 0] < 0.1 and slide_bounds(second)[0, 1] < 0.1
    viewer.scene.camera.center = (0, 30, 20)
    viewer.scene.camera.zoom = 4

    # Chosen in the panel and in the layer list.
    slides = panel.slide_box.slide_list
    place = slides.visualItemRect(slides.item(2)).center()
    QTest.mouseClick(slides.viewport(), Qt.MouseButton.LeftButton, pos=place)
    (left, top), (right, bottom) = slide_bounds(third)
    assert session.slide is third
    assert left < viewer.scene.camera.center[-1] < right
    viewer.layers.selection.active = first.layer
    assert session.slide is first
    assert 0 < viewer.scene.camera.center[-1] < slide_bounds(first)[1, 0]
    viewer.scene.camera.center = (0, 30, 20)
    viewer.layers.selection.active = third.layer
    viewer.scene.camera.center = (0, 40, float(left) + 25)
    viewer.layers.selection.active = third.layer
    assert viewer.scene.camera.center[1:] == pytest.approx((40, left + 25))  # it stays

    # Another pixel size: what lies on the slide follows it, and no slide is covered.
    viewer.layers.selection.active = second.layer
    points = Points([[10.0, 20.0]], scale=(MPP, MPP), units=("um", "um"), axis_labels=("y", "x"))
    session.layers.insert(points, second)
    for mpp in (2.0, 0.1):
        session.viewer_slides.set_mpp(mpp)
        assert not any(overlap(*pair) for pair in combinations(session.slides, 2))
        np.testing.assert_allclose(
            points.data_to_world((10, 20)), second.layer.data_to_world((10, 20))
        )
        assert slide_bounds(second)[0, 0] < viewer.scene.camera.center[-1]
        assert viewer.scene.camera.center[-1] < slide_bounds(second)[1, 0]
    viewer.layers.remove(second.layer)
    center = viewer.scene.camera.center[-1]
    assert slide_bounds(session.slide)[0, 0] < center < slide_bounds(session.slide)[1, 0]


def test_slides_that_were_open_before_the_panel_stay(tmp_path, pixels, qapp) -> None:
    """Something may be drawn on them, in the same place."""
    viewer = ViewerModel()
    for name in "ab":
        (tmp_path / name).mkdir()
        viewer.open(foreign_file("tiff", tmp_path / name, pixels), plugin="napari")
    session = get_session(viewer)
    assert len(session.slides) == 2
    np.testing.assert_allclose([s.layer.translate for s in session.slides], 0)


def test_slide_that_was_placed_by_hand_stays(tmp_path, pixels, qapp) -> None:
    viewer = ViewerModel()
    session = get_session(viewer)
    for name in "ab":
        (tmp_path / name).mkdir()
        file = foreign_file("tiff", tmp_path / name, pixels)
        viewer.open(file, plugin="napari-dkan", translate=(5, 5))
    np.testing.assert_allclose([s.layer.translate for s in session.slides], 5)


def test_spots_of_a_second_sample_lie_on_its_slide(make_panel) -> None:
    panel = make_panel()
    viewer = panel.session.viewer
    panel.session.change_settings(prefetch=False)
    for _ in range(2):
        slide, spots = viewer.open_sample("napari-dkan", "synthetic")
        at = spots.data[0]
        np.testing.assert_allclose(spots.data_to_world(at), slide.data_to_world(at))
    assert slide.translate[-1] > 0


def test_slide_that_is_chosen_in_the_panel_is_selected_in_the_layer_list(
    make_panel, tmp_path, pixels, qtbot
) -> None:
    """A click on the other one in the list is then a change, which chooses it."""
    panel = make_panel()
    session, viewer = panel.session, panel.session.viewer
    session.change_settings(prefetch=False)
    for name in "ab":
        (tmp_path / name).mkdir()
        viewer.open(foreign_file("tiff", tmp_path / name, pixels), plugin="napari-dkan")
    first, second = session.slides
    assert viewer.layers.selection.active is second.layer
    slides = panel.slide_box.slide_list
    assert slides.isVisibleTo(panel) and not panel.sections["Slide"].is_open
    slides.setFocus()
    qtbot.keyClick(slides, Qt.Key.Key_Up)
    assert session.slide is first and viewer.layers.selection.active is first.layer
    tree = viewer.window._qt_viewer.layers
    row = tree.visualRect(tree.model().index(0, 0))  # the newest layer is on top
    qtbot.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=row.center())
    assert session.slide is second
    shapes = viewer.add_shapes(ndim=2, scale=(MPP, MPP), units=("um", "um"))
    session.viewer_slides.set_current(first)
    assert viewer.layers.selection.active is shapes  # what is drawn on stays selected
