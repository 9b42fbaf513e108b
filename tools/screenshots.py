"""The pictures of the README, taken in the real window: ``make screenshots``."""

from __future__ import annotations

from pathlib import Path

from imageio.v3 import imwrite
from napari import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_dkan.samples import fetch_section
from napari_dkan.viewer import demo
from napari_dkan.viewer.predict_widget import PredictWidget
from napari_dkan.viewer.quality.views import Layout

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"


def lens(viewer: Viewer, panel: PredictWidget) -> NDArray:
    """The canvas with the lens over the tissue, and nothing else on it."""
    session = panel.session
    for overlay in list(session.overlays):
        viewer.layers.remove(overlay.layer)
    for layer in viewer.layers:
        layer.visible = layer is session.slide.layer
    session.change(dense=True)
    place = demo.look_at_tissue(viewer, panel).centroid
    panel.lens.resize(1300)
    panel.lens.switch(True)
    panel.lens.move(place.x + 800, place.y)
    demo.process_events(0.5)
    demo.wait(lambda: not panel.lens.busy, "the lens")
    demo.process_events(1)
    return viewer.screenshot(canvas_only=True, flash=False)


def quality(viewer: Viewer, panel: PredictWidget) -> NDArray:
    """Measured, predicted and residual beside the histology, and the figures of every gene."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-dkan", "DKAN: quality control")
    state = widget.quality
    paths = fetch_section("C3")
    state.load([paths.counts, paths.spots], image=paths.image)
    demo.wait(lambda: state.comparison is not None and not state.busy, "the comparison")
    demo.wait(lambda: widget.figures.summary is not None, "the figures")
    state.set_layout(Layout.SIDE_BY_SIDE)
    viewer.window.resize(1800, 1080)
    dock = _dock(widget)
    dock.raise_()
    viewer.window._qt_window.resizeDocks([dock], [560], Qt.Orientation.Horizontal)
    demo.process_events(1)
    look_at_cell(viewer, panel)
    demo.process_events(2)
    return viewer.screenshot(canvas_only=False, flash=False)


def _dock(widget: QWidget) -> QDockWidget:
    while not isinstance(widget, QDockWidget):
        widget = widget.parent()
    return widget


def look_at_cell(viewer: Viewer, panel: PredictWidget) -> None:
    """Fit the tissue to a cell of two by two."""
    slide = panel.session.slide
    x0, y0, x1, y1 = (b * slide.mpp for b in slide.tissue.bounds)
    height, width = viewer.canvas.size
    viewer.scene.camera.center = (0, (y0 + y1) / 2, (x0 + x1) / 2)
    viewer.scene.camera.zoom = 0.42 * min(width / (x1 - x0), height / (y1 - y0))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    viewer, panel, title = demo.open_section()
    demo.walk(viewer, panel)
    demo.process_events(1)
    picture = viewer.screenshot(canvas_only=False, flash=False)
    imwrite(OUT / "window.png", picture)
    imwrite(OUT / "lens.png", lens(viewer, panel))
    print(f"{OUT / 'window.png'}, lens.png: {title}")
    panel.shut_down()
    viewer.close()
    viewer, panel, title = demo.open_section()
    imwrite(OUT / "quality.png", quality(viewer, panel))
    print(f"{OUT / 'quality.png'}: {title}")
    panel.shut_down()
    viewer.close()


if __name__ == "__main__":
    main()
