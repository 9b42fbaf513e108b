"""The pictures of the README and of the docs, taken in the real window: ``make screenshots``.

``make screenshots ARGS=tutorial`` takes those of one kind only: readme, tutorial, quality (with the
report, drawn by Chromium or Chrome), why, tour.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from napari import Viewer
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QWidget
from tour import film_tour

from napari_dkan.samples import fetch_her2st_section
from napari_dkan.viewer import demo
from napari_dkan.viewer.jobs.target_from_layers import target_from_layers
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
from napari_dkan.viewer.panels.quality.data.quality_model import MapLayout
from napari_dkan.viewer.widgets.fold_section import FoldSection
from napari_dkan.viewer.widgets.scroll_column import ScrollColumn

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"
LAPTOP = 1366, 768
REPORT = 900, 1700  # down to the maps of a gene
BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    kinds = {"readme": readme, "tutorial": tutorial, "quality": quality, "why": why}
    for kind in sys.argv[1:] or [*kinds, "tour"]:
        if kind == "tour":
            film_tour()
            continue
        viewer, panel, title = demo.open_section()
        for name, picture in kinds[kind](viewer, panel):
            path = OUT / f"{name}.png"
            light(picture[..., :3]).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size // 1000} kB, {title}")
        panel.shut_down()
        viewer.close()


def light(rgb: NDArray) -> Image.Image:
    """With 256 colours, in a third of the bytes; rare ones, such as a colour bar's, count too."""
    height, width, _ = rgb.shape
    distinct = np.unique(rgb.reshape(-1, 3) // 8, axis=0).astype(np.uint8) * 8 + 4
    rare = np.resize(distinct, (height // 2, width, 3))
    both = Image.fromarray(np.concatenate([rgb, rare])).quantize(256)
    return both.crop((0, 0, width, height))


def readme(viewer: Viewer, panel: PredictWidget) -> Iterator[tuple[str, NDArray]]:
    """The window after the three clicks."""
    demo.run_scripted_steps(viewer, panel)
    demo.process_events(1)
    yield "window", viewer.screenshot(canvas_only=False, flash=False)


def tutorial(viewer: Viewer, panel: PredictWidget) -> Iterator[tuple[str, NDArray]]:
    """The window of a laptop, step by step."""
    viewer.window.resize(*LAPTOP)
    panel.display_section.collapse()  # as on the screen of a laptop
    tissue = demo.fit_view_to_tissue(viewer, panel)
    demo.wait_until(lambda: not panel.prefetcher.busy, "getting ready")
    yield "tutorial-open", window(viewer, panel.slide_box.slide_list)

    panel.slide_box.toggle_ruler()
    x0, y0, x1, _ = tissue.bounds
    panel.slide_box.ruler.layer.add_lines([np.array([[y0 - 300, x0], [y0 - 300, x1]])])
    yield "tutorial-ruler", window(viewer, panel.slide_box)
    panel.slide_box.ruler.cancel()

    inside = tissue.representative_point()
    demo.click_at(panel, inside.x, inside.y)
    yield "tutorial-click", window(viewer, panel.spot_box)

    middle = tissue.centroid
    demo.draw_region(panel, middle.x, middle.y, 0.5 * tissue.area**0.5)
    regions = panel.target_box.regions_layer
    demo.wait_until(
        lambda: target_from_layers(panel.session, None, regions()) is not None, "the plan"
    )
    panel.target_box.start_prediction()
    demo.wait_until(lambda: not panel.prediction_jobs.busy, "the region")
    yield "tutorial-region", window(viewer, panel.target_box)

    with TemporaryDirectory() as folder:
        panel.results.save_result(Path(folder) / "C3-predicted.h5ad")
        demo.wait_until(lambda: not panel.results.busy, "the saved result")
        yield "tutorial-save", window(viewer, panel.results_box)

    use_lens(viewer, panel)
    yield "tutorial-lens", window(viewer, panel.lens_box)


def window(viewer: Viewer, box: QWidget) -> NDArray:
    """The whole window, with that box of the panel in sight."""
    demo.process_events(0.5)
    area = _above(box, ScrollColumn)
    folded = [s for s in area.findChildren(FoldSection) if s.isAncestorOf(box) and not s.is_open]
    for section in folded:
        section.expand()
    area.verticalScrollBar().setValue(0)
    area.reveal(box)
    demo.process_events(1)
    picture = viewer.screenshot(canvas_only=False, flash=False)
    for section in folded:
        section.collapse()
    return picture


def use_lens(viewer: Viewer, panel: PredictWidget) -> None:
    """The lens over the tissue, and nothing else on it."""
    session = panel.session
    for overlay in list(session.overlays):
        viewer.layers.remove(overlay.layer)
    for layer in viewer.layers:
        layer.visible = layer is session.slide.layer
    session.change_settings(dense_grid=True)
    place = demo.fit_view_to_tissue(viewer, panel).centroid
    panel.lens.resize(1300)
    panel.lens.set_active(True)
    panel.lens.move(place.x + 800, place.y)
    demo.process_events(0.5)
    demo.wait_until(lambda: not panel.lens.busy, "the lens")
    demo.process_events(1)


def quality(viewer: Viewer, panel: PredictWidget) -> Iterator[tuple[str, NDArray]]:
    """Measured, predicted and residual beside the histology, and the figures of every gene."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-dkan", "DKAN: quality control")
    state = widget.quality.model
    paths = fetch_her2st_section("C3")
    widget.quality.load([paths.counts, paths.spots], image=paths.image)
    demo.wait_until(
        lambda: state.comparison is not None and not widget.quality.busy, "the comparison"
    )
    demo.wait_until(lambda: widget.metrics.summary is not None, "the figures")
    state.set_layout(MapLayout.SIDE_BY_SIDE)
    viewer.window.resize(1800, 1080)
    dock = _above(widget, QDockWidget)
    dock.raise_()
    viewer.window._qt_window.resizeDocks([dock], [560], Qt.Orientation.Horizontal)
    demo.process_events(1)
    look_at_cell(viewer, panel)
    demo.process_events(2)
    yield "quality", viewer.screenshot(canvas_only=False, flash=False)

    with TemporaryDirectory() as folder:
        page = Path(folder) / "C3-report.html"
        widget.report_box.write_report(page)
        demo.wait_until(lambda: not widget.report_box.job_row.busy, "the report")
        yield from draw_page("report", page)


def draw_page(name: str, page: Path) -> Iterator[tuple[str, NDArray]]:
    """The top of a page as a browser draws it; nothing where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"{name}.png stays as it is: Chromium or Chrome is needed to draw the page.")
        return
    picture = page.with_suffix(".png")
    command = [browser, "--headless", "--hide-scrollbars", f"--screenshot={picture}"]
    command += [
        f"--user-data-dir={page.parent / 'browser'}",
        f"--window-size={REPORT[0]},{REPORT[1]}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # which it does not start without as root
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True)
    yield name, np.asarray(Image.open(picture).convert("RGB"))


def why(viewer: Viewer, panel: PredictWidget) -> Iterator[tuple[str, NDArray]]:
    """Why a gene is high at a clicked spot."""
    viewer.window.resize(*LAPTOP)
    tissue = demo.fit_view_to_tissue(viewer, panel)
    demo.wait_until(lambda: not panel.prefetcher.busy, "getting ready")
    panel.session.set_gene("IGHG3")
    panel.display_section.collapse()
    place, slide = tissue.representative_point(), panel.session.slide
    demo.click_at(panel, place.x, place.y)
    explainer = panel.occlusion_box.explainer
    panel.occlusion_box.checkbox.click()
    demo.wait_until(lambda: explainer.explanation is not None and not explainer.busy, "why")
    viewer.scene.camera.center = (0, place.y * slide.mpp, place.x * slide.mpp)
    viewer.scene.camera.zoom *= 3
    yield "why", window(viewer, panel.occlusion_box)


def _above(widget: QWidget, kind: type) -> QWidget:
    while not isinstance(widget, kind):
        widget = widget.parent()
    return widget


def look_at_cell(viewer: Viewer, panel: PredictWidget) -> None:
    """Fit the tissue to a cell of two by two."""
    slide = panel.session.slide
    x0, y0, x1, y1 = (b * slide.mpp for b in slide.tissue.bounds)
    height, width = viewer.canvas.size
    viewer.scene.camera.center = (0, (y0 + y1) / 2, (x0 + x1) / 2)
    viewer.scene.camera.zoom = 0.42 * min(width / (x1 - x0), height / (y1 - y0))


if __name__ == "__main__":
    main()
