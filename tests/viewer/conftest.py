"""The panel in a real napari.Viewer, on a small slide with a small random checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_MS = 60_000


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is remembered from one test to the next, nor in the person's home."""
    folder = tmp_path / "config"
    monkeypatch.setattr(
        "napari_dkan.viewer.memory.platformdirs.user_config_path", lambda *a, **k: folder
    )
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def until(qtbot) -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        qtbot.waitUntil(condition, timeout=PATIENCE_MS)

    return wait


@pytest.fixture
def make_panel(make_napari_viewer, monkeypatch, tiny_checkpoint_file, until):
    """A viewer with the panel docked and the small checkpoint loaded."""
    from napari_dkan.viewer.predict_widget import PredictWidget

    monkeypatch.setattr(
        "napari_dkan.viewer.model_box.bundled_checkpoints", lambda: [tiny_checkpoint_file]
    )
    panels = []

    def make(**kwargs) -> PredictWidget:
        viewer = make_napari_viewer(**kwargs)
        panel = PredictWidget(viewer)
        viewer.window.add_dock_widget(panel, name="DKAN: predict", area="right")
        panel.session.change(store=False)  # tests that want the disk say so
        panels.append(panel)
        until(lambda: panel.session.checkpoint is not None)
        return panel

    yield make
    for panel in panels:
        panel.shut_down()


@pytest.fixture
def panel(make_panel, tiny_slide_file, until):
    """The panel with the small slide open, its tissue found, ready to predict."""
    made = make_panel()
    made.session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    until(lambda: made.session.slide is not None and made.session.slide.tissue is not None)
    until(lambda: not made.ready.busy)
    return made


@pytest.fixture
def middle(panel) -> tuple[float, float]:
    """A place on the tissue, (x, y) in level-0 px."""
    point = panel.session.slide.tissue.representative_point()
    return point.x, point.y
