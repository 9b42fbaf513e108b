"""``napari-dkan demo``: the whole path in a real window, from a click to a written result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DkanError

if TYPE_CHECKING:
    from napari import Viewer
    from shapely.geometry.base import BaseGeometry

    from .panels.predict.predict_widget import PredictWidget


VIRTUAL_DISPLAY_ENV = "NAPARI_DKAN_VIRTUAL"  # set under a virtual display, without a user
STEP_TIMEOUT_S = 180.0


def run_demo(out: Path, scripted: bool = False) -> None:
    """Open napari with a section and a checkpoint.

    Parameters
    ----------
    out : Path
        Folder of the results of a scripted demo.
    scripted : bool
        Click a spot, predict a region and change the gene, write ``window.png`` and
        ``prediction.h5ad`` and print both paths. Always the case without a display; a virtual
        one is used then.
    """
    if not _has_display():
        _rerun_under_xvfb(out)
        return
    import napari

    started = time.perf_counter()
    viewer, panel, title = open_section()
    print(f"Showing {title}.")
    if VIRTUAL_DISPLAY_ENV not in os.environ and not scripted:
        fit_view_to_tissue(viewer, panel)
        napari.run()
        return
    figures = run_scripted_steps(viewer, panel)
    paths = save_results(viewer, panel, out)
    print(
        f"Click to bars: {figures['click']:.2f} s (first), {figures['second click']:.2f} s (next)"
    )
    print(f"Region: {figures['tiles']:.0f} tiles in {figures['region']:.1f} s")
    print(f"Gene change: {figures['gene']:.3f} s")
    print(f"Whole demo: {time.perf_counter() - started:.1f} s")
    for path in paths:
        print(path)
    panel.shut_down()
    viewer.close()


def open_section() -> tuple[Viewer, PredictWidget, str]:
    """Open a viewer with the HER2ST section, or else the synthetic one, and the Predict panel.

    Returns
    -------
    tuple
        The viewer, the panel and the title of the section.
    """
    import napari

    from ..samples import fetch_her2st_section, find_bundled_checkpoint, get_synthetic_section
    from .panels.predict.predict_widget import PredictWidget
    from .plugin.sample_data import make_section_layers

    try:
        paths, model = fetch_her2st_section("C3"), "her2-breast"
    except DkanError as error:
        print(f"{error} The synthetic section is shown instead.", file=sys.stderr)
        paths, model = get_synthetic_section(), "synthetic"
    viewer = napari.Viewer(title="napari-dkan", show=True)
    viewer.window.resize(1500, 950)
    for data, options, kind in make_section_layers(paths):
        getattr(viewer, f"add_{kind}")(data, **options)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.reset_view()
    panel = PredictWidget(viewer)
    viewer.window.add_dock_widget(panel, name="DKAN: predict", area="right")
    checkpoint = find_bundled_checkpoint(model)
    wait_until(lambda: panel.session.checkpoint is not None, "the checkpoint")
    if _checkpoint_path(panel) != checkpoint:
        panel.model_box.load(checkpoint)
        wait_until(lambda: _checkpoint_path(panel) == checkpoint, "the checkpoint")
    return viewer, panel, paths.title or paths.name


def run_scripted_steps(viewer: Viewer, panel: PredictWidget) -> dict[str, float]:
    """Click two spots, predict a region and change the gene; return seconds and tiles."""
    from .jobs.target_from_layers import target_from_layers
    from .session.viewer_settings import TargetMode

    session = panel.session
    figures: dict[str, float] = {}
    tissue = fit_view_to_tissue(viewer, panel)
    point, centre = tissue.representative_point(), tissue.centroid
    wait_until(lambda: not panel.prefetcher.busy, "getting ready")

    for name, shift in (("click", 0.0), ("second click", 40.0)):
        figures[name] = click_at(panel, point.x + shift, point.y)

    start = time.perf_counter()
    draw_region(panel, centre.x, centre.y, 0.5 * tissue.area**0.5)
    wait_until(
        lambda: target_from_layers(session, None, panel.target_box.regions_layer()) is not None,
        "the plan",
    )
    panel.target_box.start_prediction()
    wait_until(lambda: not panel.prediction_jobs.busy, "the region")
    figures["region"] = time.perf_counter() - start
    figures["tiles"] = float(session.overlays[-1].prediction.predicted_mask.sum())

    start = time.perf_counter()
    session.step_gene(1)
    process_events()
    figures["gene"] = time.perf_counter() - start
    session.step_gene(-1)
    session.change_settings(target_mode=TargetMode.CLICK)
    process_events()
    return figures


def fit_view_to_tissue(viewer: Viewer, panel: PredictWidget) -> BaseGeometry:
    """Wait for the tissue, fit the view to it and return it, in level-0 px."""
    slide = panel.session.slide
    assert slide is not None
    wait_until(lambda: slide.tissue is not None, "the tissue")
    tissue = slide.tissue
    assert tissue is not None
    x0, y0, x1, y1 = (b * slide.mpp for b in tissue.bounds)
    viewer.scene.camera.center = (0, (y0 + y1) / 2, (x0 + x1) / 2)
    height, width = viewer.canvas.size
    viewer.scene.camera.zoom = 0.8 * min(width / (x1 - x0), height / (y1 - y0))
    return tissue


def click_at(panel: PredictWidget, x: float, y: float) -> float:
    """Click at (x, y) in level-0 px and return the seconds until the spot is predicted.

    The window's thread sleeps in its event loop until then, as it does under a person's hands; one
    that looks again every millisecond takes the interpreter from the thread that predicts.

    Raises
    ------
    DkanError
        After the timeout.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    session, loop, timeout = panel.session, QEventLoop(), QTimer()
    ended: list[float] = []

    def on_spot() -> None:
        if session.spot is not before and not ended:
            ended.append(time.perf_counter())
            loop.quit()

    timeout.setSingleShot(True)
    timeout.timeout.connect(loop.quit)
    before, start = session.spot, time.perf_counter()
    session.spot_changed.connect(on_spot)
    try:
        panel.click_predictor.predict_at(x, y)
        timeout.start(round(1000 * STEP_TIMEOUT_S))
        if not ended:
            loop.exec()
    finally:
        session.spot_changed.disconnect(on_spot)
    if not ended:
        raise DkanError(f"The demo waited {STEP_TIMEOUT_S:.0f} s for the clicked spot in vain.")
    return ended[0] - start


def draw_region(panel: PredictWidget, x: float, y: float, size: float) -> None:
    """Draw a region around (x, y) in level-0 px."""
    from ..spatial.coordinates import swap_xy
    from .session.viewer_settings import TargetMode

    panel.target_box.mode_buttons[TargetMode.REGION].click()
    layer = panel.target_box.regions_layer()
    assert layer is not None
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = size * (1 + 0.15 * np.sin(3 * angle))
    ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    layer.add_polygons([swap_xy(ring)])
    layer.mode = "pan_zoom"


def save_results(viewer: Viewer, panel: PredictWidget, out: Path) -> list[Path]:
    """Save a screenshot of the window and the prediction of the region as AnnData."""
    from imageio.v3 import imwrite

    from ..atomic_write import atomic_write
    from ..export.anndata_export import to_anndata, write_h5ad

    process_events(0.5)
    screenshot, result = out / "window.png", out / "prediction.h5ad"
    with atomic_write(screenshot) as temporary:
        imwrite(temporary, viewer.screenshot(canvas_only=False, flash=False))
    slide = panel.session.slide
    assert slide is not None
    prediction = panel.session.overlays[-1].prediction.select_predicted()
    write_h5ad(to_anndata(prediction, slide.slide), result)
    return [screenshot, result]


def wait_until(
    condition: Callable[[], Any],
    description: str,
    seconds: float = STEP_TIMEOUT_S,
    pause: float = 0.01,
) -> None:
    """Run Qt's event loop until a condition holds.

    Raises
    ------
    DkanError
        After the timeout.
    """
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise DkanError(f"The demo waited {seconds:.0f} s for {description} in vain.")
        process_events(pause)


def process_events(seconds: float = 0.05) -> None:
    """Run Qt's event loop for a while.

    processEvents() would not delete objects with a pending deleteLater(), such as the controls of
    a removed layer.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(max(0, round(seconds * 1000)), loop.quit)
    loop.exec()


def _checkpoint_path(panel: PredictWidget) -> Path | None:
    checkpoint = panel.session.checkpoint
    return None if checkpoint is None else checkpoint.path


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _rerun_under_xvfb(out: Path) -> None:
    """Run the demo again in a virtual display."""
    import shutil
    import subprocess

    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        raise DkanError(
            "There is no display and xvfb-run is not installed; install the package xvfb, or "
            "run this on a desktop."
        )
    command = [xvfb, "-a", "-s", "-screen 0 1600x1000x24", sys.executable, "-m", "napari_dkan"]
    environment = os.environ | {VIRTUAL_DISPLAY_ENV: "1"}
    done = subprocess.run([*command, "demo", "--out", str(out)], env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)
