"""Walks of people through the visible window, with mouse events alone.

No method of a widget, of the session or of the viewer is called on the way, and napari has no
settings. Each action has to be followed by a new text in sight or another picture of the slide
within a second. What is asserted is what the window's thread computes until then, as a multiple of
a piece of work that is measured in the same run, so that other programs and slower machines change
nothing. The seconds on the clock are printed (``-s``).
"""

from __future__ import annotations

import gc
import json
import time
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
WORK_STEPS, WORK_S = 10_000, 0.05  # and its CPU seconds on a machine of two cores
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


def measure_work() -> float:
    """CPU seconds of a piece of work in this thread, the best of some runs."""

    def work() -> float:
        start = time.thread_time()
        for i in range(WORK_STEPS):
            json.loads(json.dumps({"value": i, "text": str(i)}))
        return time.thread_time() - start

    return min(work() for _ in range(5))


def take(person: Person, walk: Walk) -> None:
    """Take a walk, and check that each action got its answer within a second."""
    work_s = measure_work()
    person.run(walk)
    limit = max(1.0, work_s / WORK_S)
    late = [str(action) for action in person.actions if action.cpu_s > limit]
    assert not late, f"within {limit:.1f} s"


def look_at_bars(person: Person) -> Walk:
    """The genes of the clicked spot, without scrolling."""
    yield lambda: person.sees(r"\) px") and person.sees_whole("GeneBars")


def test_jpg_without_pixel_size_to_first_bars(person: Person, pixels):
    photo = Path("section.jpg").absolute()
    Image.fromarray(pixels).save(photo, quality=92)

    def walk() -> Walk:
        yield from person.open_panel(PREDICT)
        yield from person.wait("6 genes")  # the model is loaded
        yield from person.drop(photo)
        yield from person.press("Set pixel size")
        yield from person.click(0.5, 0.5)
        yield from look_at_bars(person)

    take(person, walk())
    assert len(person.actions) <= 4 and not person.wheel_turns


def test_svs_to_compared_regions_in_qupath(person: Person, pixels):
    slide = svs(Path("tumour.svs").absolute(), halves(pixels, 2), "jpeg", "AppMag = 20|MPP = 0.7")

    def walk() -> Walk:
        yield from person.open_panel(PREDICT)
        yield from person.drop(slide)
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

    take(person, walk())
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

    take(person, walk())
    (report,) = Path().glob("*report.html")
    page = report.read_text(encoding="utf-8")
    assert "ERBB2" in page and "49" in page
    assert not person.wheel_turns
