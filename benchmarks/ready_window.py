"""A real window on a section with the bundled checkpoint, at rest, for the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from section import empty_cache

if TYPE_CHECKING:
    from napari import Viewer

    from napari_dkan.viewer.layers.prediction_layers import GridOverlay
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def ready_window() -> tuple[Viewer, PredictWidget, str]:
    """Viewer, panel and the section's name, once the warm-up has ended.

    What is kept on disk goes to an empty folder in build/.
    """
    empty_cache("window")
    from napari_dkan.viewer import demo

    viewer, panel, title = demo.open_section()
    demo.fit_view_to_tissue(viewer, panel)
    settle(panel)
    return viewer, panel, title


def settle(panel: PredictWidget, seconds: float = 1.0) -> None:
    """Wait until nothing runs any more.

    The warm-up begins a moment after the view rests, and the check of the slide after it.
    """
    from napari_dkan.viewer import demo

    lanes: tuple[Any, ...] = (
        panel.prefetcher,
        panel.prediction_jobs,
        panel.click_predictor,
        panel.gene_decode_job,
        panel.slide_check_banner,
    )
    while True:
        demo.wait_until(lambda: not any(lane.busy for lane in lanes), "a window at rest")
        demo.process_events(seconds)
        if not any(lane.busy for lane in lanes):
            return


def places_on_tissue(panel: PredictWidget, count: int) -> list[tuple[float, float]]:
    """Seeded places on the tissue, (x, y) in level-0 px."""
    from shapely.geometry import Point

    slide = panel.session.slide
    assert slide is not None and slide.tissue is not None
    random = np.random.default_rng(0)
    x0, y0, x1, y1 = slide.tissue.bounds
    places: list[tuple[float, float]] = []
    while len(places) < count:
        x, y = random.uniform((x0, y0), (x1, y1))
        if slide.tissue.contains(Point(x, y)):
            places.append((float(x), float(y)))
    return places


def random_map(panel: PredictWidget, columns: int, rows: int) -> GridOverlay:
    """Show a map of so many tiles over the whole slide, of tokens and values drawn at random."""
    from napari_dkan.inference.gene_decoder import GeneDecoder
    from napari_dkan.inference.prediction import Prediction
    from napari_dkan.inference.target import Target, TargetKind
    from napari_dkan.spatial.tile_grid import TileGrid
    from napari_dkan.viewer.layers.prediction_layers import GridOverlay

    session = panel.session
    slide, checkpoint = session.slide, session.checkpoint
    assert slide is not None and checkpoint is not None
    pitch = min(slide.slide.width / columns, slide.slide.height / rows)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    grid = TileGrid(pitch, pitch * slide.mpp, np.stack([x.ravel(), y.ravel()], axis=1))
    prediction = Prediction.create_empty(
        Target(TargetKind.GRID, grid.to_spots(), grid),
        checkpoint.panel,
        checkpoint.label_scale,
        {
            "mpp": slide.mpp,
            "patch_um": checkpoint.patch.um,
            "slide_fingerprint": slide.slide.fingerprint(),
            "checkpoint_sha256": checkpoint.sha256,
        },
        token_dim=checkpoint.network.config.token_dim,
    )
    draw = np.random.default_rng(0)
    prediction.tokens[:] = draw.standard_normal(prediction.tokens.shape, np.float32)
    prediction.values[:] = draw.standard_normal(prediction.values.shape, np.float32)
    decode = partial(GeneDecoder(checkpoint.network).decode, zero_shot=None)
    overlay = GridOverlay(prediction, decode, slide.mpp, 0.65)
    session.add_overlay(overlay, slide)
    settle(panel)
    return overlay


class Frames:
    """Counts the frames that the canvas has drawn, to the last of their OpenGL commands."""

    def __init__(self, viewer: Viewer) -> None:
        self.count = 0
        self._loop: Any = None
        self._until: Callable[[], bool] = lambda: True
        self._canvas_bounds = viewer.window._qt_viewer.canvas._scene_canvas
        self._canvas_bounds.events.draw.connect(self._drawn, position="last")

    def redraw(self) -> float:
        """Seconds of a frame in which nothing has changed."""
        before, start = self.count, time.perf_counter()
        self._canvas_bounds.update()
        self.wait(lambda: self.count > before)
        return time.perf_counter() - start

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let Qt's own event loop run until a frame with which the condition holds."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop = self._loop = QEventLoop()
        self._until = condition
        QTimer.singleShot(60_000, loop.quit)
        loop.exec()
        self._loop = None

    def _drawn(self, event: object) -> None:
        from vispy.gloo import gl

        gl.glFinish()
        self.count += 1
        if self._loop is not None and self._until():
            self._loop.quit()
