"""Walks of people through the visible window, with mouse events alone.

No method of a widget, of the session or of the viewer is called on the way. Each action has to be
followed by a new text in sight or another picture of the slide. The seconds until then are printed
(``-s``) and not asserted, since they are those of the machine.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from person import Person, Walk
from PIL import Image
from qtpy.QtCore import QCoreApplication, Qt

from ..slide_files import halves
from ..vendor_files import svs

LAPTOP = 1366, 768
PREDICT, QUALITY, REGIONS = "DKAN: predict", "DKAN: quality control", "DKAN: regions"
LEFT_HALF, RIGHT_HALF = (0.36, 0.5), (0.64, 0.5)  # on the canvas


@pytest.fixture
def person(
    make_napari_viewer, monkeypatch, tiny_checkpoint_file, tmp_path, qtbot
) -> Iterator[Person]:
    """Before an empty napari on a laptop, with the small checkpoint, in an empty folder."""
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.predict.model_box.list_bundled_checkpoints",
        lambda: [tiny_checkpoint_file],
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    native = Qt.ApplicationAttribute.AA_DontUseNativeDialogs
    before = QCoreApplication.testAttribute(native)
    QCoreApplication.setAttribute(native, True)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(*LAPTOP)
    qtbot.wait(50)
    made = Person(viewer.window._qt_window)
    yield made
    print("", *made.actions, f"{made.wheel_turns} turns of the wheel", sep="\n")
    QCoreApplication.setAttribute(native, before)
    for panel in viewer.window.dock_widgets.values():
        getattr(panel, "shut_down", lambda: None)()
        if hasattr(panel, "quality"):
            panel.quality.close()
    made.window = None
    viewer.close()
    del panel, viewer
    gc.collect()  # a walk is long enough for the window to have become an old object


@pytest.fixture(scope="module")
def pixels(tiny_slide_file: Path) -> np.ndarray:
    return tifffile.imread(tiny_slide_file)


def ring(x: float, y: float, radius: float = 0.1) -> list[tuple[float, float]]:
    """A circle on the canvas, which is wider than high."""
    angles = np.linspace(0, 2 * np.pi, 16)
    return [(x + radius * np.cos(a), y + 1.3 * radius * np.sin(a)) for a in angles]


def drop_slide(person: Person, path: Path) -> Walk:
    """Drop a slide; that napari asks once for each kind of file by which reader is not counted."""
    yield from person.drop(path)
    yield from person.press("napari-dkan")
    yield from person.press("OK")
    person.actions[:] = person.actions[:1]


def look_at_bars(person: Person) -> Walk:
    """The genes of the clicked spot, without scrolling."""
    yield lambda: person.sees(r"\) px") and person.sees_whole("GeneBars")


def test_jpg_without_pixel_size_to_first_bars(person: Person, pixels):
    photo = Path("section.jpg").absolute()
    Image.fromarray(pixels).save(photo, quality=92)

    def walk() -> Walk:
        yield from drop_slide(person, photo)
        yield from person.open_panel(PREDICT)
        yield from person.press("Set pixel size")
        yield from person.click(0.5, 0.5)
        yield from look_at_bars(person)

    person.run(walk())
    assert len(person.actions) <= 4 and not person.wheel_turns


def test_svs_to_compared_regions_in_qupath(person: Person, pixels):
    slide = svs(Path("tumour.svs").absolute(), halves(pixels, 2), "jpeg", "AppMag = 20|MPP = 0.7")

    def walk() -> Walk:
        yield from drop_slide(person, slide)
        yield from person.open_panel(PREDICT)
        yield from person.click(0.5, 0.5)
        yield from look_at_bars(person)
        assert len(person.actions) <= 3 and not person.wheel_turns
        yield from person.open_panel(REGIONS)
        for place in (LEFT_HALF, RIGHT_HALF):
            yield from person.press("New")
            yield from person.stroke(ring(*place))
        yield from person.press("Predict whole tissue")
        yield from person.wait("tiles predicted")
        yield from person.press("Compare")
        yield from person.wait("one patient")
        yield from person.press("Export")
        yield from person.press("QuPath annotations (.geojson), shown")
        yield from person.press("Save")
        yield from person.wait("2 regions written")

    person.run(walk())
    (written,) = Path().glob("*.geojson")
    features = json.loads(written.read_text(encoding="utf-8"))["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == ["Region 1", "Region 2"]
    for measured in (f["properties"]["measurements"] for f in features):
        assert measured["Tiles"] > 1 and np.isfinite(measured["ERBB2 predicted mean"])


def test_quality_control_of_a_section_to_its_report(person: Person, measured_file):
    def walk() -> Walk:
        yield from person.drop(measured_file)
        yield from person.wait("drawn")  # the slide that the file names
        yield from person.open_panel(QUALITY)
        yield from person.wait("Depth-partial PCC")
        yield from person.press("Side by side")
        yield from person.press("Report")
        yield from person.press("Save")
        yield from person.wait("is written")

    person.run(walk())
    (report,) = Path().glob("*report.html")
    page = report.read_text(encoding="utf-8")
    assert "ERBB2" in page and "49" in page
