"""Computations in advance: the tissue, the prediction rate and the context of the current view."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from itertools import chain

import numpy as np
import psutil
from psygnal import Signal

from ...inference.predictor import Predictor
from ...inference.target import Target, target_from_region
from ...spatial.coordinates import swap_xy
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from ..worker import JobFailure, JobRunner
from .viewport import Viewport


def is_on_battery() -> bool:
    """Return whether the computer runs on battery; False if this is unknown."""
    read_battery = getattr(psutil, "sensors_battery", None)  # not on every system
    try:
        battery = read_battery() if read_battery is not None else None
    except (OSError, RuntimeError):
        return False
    return battery is not None and battery.power_plugged is False


TIMING_SPOTS = 16  # predicted without being shown, to measure the rate
VIEW_REST_MS = 400  # without a movement of the view before its context is computed
YIELD_SECONDS = 0.02  # between two checks whether another job waits


class Prefetcher:
    """Detects the tissue, measures the rate and computes the context of the current view.

    This makes clicks fast and the estimated time of a job a measured one. Other jobs take
    precedence. Without the setting `prefetch`, or on battery, only the tissue is detected.
    """

    changed = Signal()

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, viewport: Viewport
    ) -> None:
        self.session = session
        self._viewport = viewport
        self._rate_key = session.rate_key()
        self._last_settings = self._relevant_settings()
        self._runner = JobRunner("getting ready", background=True)
        self._view_debouncer = Debouncer(VIEW_REST_MS, self._on_view_rest)
        connections.connect(self.restart, session.slide_changed, session.checkpoint_changed)
        connections.connect(self._on_settings_changed, session.settings_changed)
        camera = session.viewer.scene.camera
        connections.connect(self._on_camera_moved, camera.events.center, camera.events.zoom)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._runner.busy

    def restart(self) -> None:
        """Start again with the current slide and checkpoint."""
        session = self.session
        self._runner.cancel()
        self._rate_key = session.rate_key()
        slide, checkpoint = session.slide, session.checkpoint
        if slide is not None and slide.pixel_size is not None and checkpoint is not None:

            def job() -> Iterator[float | str | None]:
                predictor = session.predictors.get(slide, checkpoint)
                yield None
                # napari imports it for the first layer with features, that of the first click.
                import_module("pandas")
                if not self._is_enabled:
                    return
                features = predictor.precomputed_features
                if features is not None and features.note:
                    yield features.note
                target = _central_tiles(predictor, slide)
                if target is not None:
                    yield from self._measure_rate(predictor, target)
                    yield from self._precompute_view(predictor, slide)

            self._runner.start(job, self._on_item, self._on_job_end)
        self.changed.emit()

    @property
    def _is_enabled(self) -> bool:
        return self.session.settings.prefetch and not is_on_battery()

    def _measure_rate(self, predictor: Predictor, target: Target) -> Iterator[float | None]:
        """Predict a few tiles; yields spots per second."""
        start, count = 0.0, 0
        for update in predictor.stream(target):
            now = time.perf_counter()
            if update.stage == "spots" and start:
                count += len(update.rows)
                yield count / max(now - start, 1e-6)
                continue
            if update.stage == "spots":  # the first batch includes the start-up time
                start = now
            yield None

    def _precompute_view(self, predictor: Predictor, slide: ViewerSlide) -> Iterator[None]:
        """Encode what a click in the centre of the view needs, and trace the network."""
        x, y = self._viewport.extent.centre
        centre = swap_xy(np.asarray([slide.layer.world_to_data((y, x))[-2:]]))
        for _ in chain(predictor.precompute_context(centre), predictor.trace_for_latency()):
            while self._runner.is_foreground_busy():
                time.sleep(YIELD_SECONDS)
                yield None
            yield None

    def _on_camera_moved(self, event: object = None) -> None:
        self._view_debouncer.start()

    def _on_view_rest(self) -> None:
        """Compute the context of the new view."""
        session = self.session
        slide, checkpoint = session.slide, session.checkpoint
        if self.busy or slide is None or slide.tissue is None or checkpoint is None:
            return
        if slide.pixel_size is None or not self._is_enabled:
            return

        def job() -> Iterator[None]:
            yield from self._precompute_view(session.predictors.get(slide, checkpoint), slide)

        self._runner.start(job, self._on_item, self._on_job_end)

    def _on_settings_changed(self) -> None:
        """Another device needs another start-up and another rate."""
        if self._relevant_settings() != self._last_settings:
            self._last_settings = self._relevant_settings()
            self.restart()

    def _relevant_settings(self) -> tuple[object, ...]:
        settings = self.session.settings
        file = self.session.predictors.feature_file(self.session.slide)
        return settings.device, settings.prefetch, settings.store_tiles, file

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._view_debouncer.stop()
        self._runner.close()

    def _on_item(self, rate: float | str | None) -> None:
        if isinstance(rate, str):
            self.session.message.show(rate, warning=True)
        elif rate is not None:
            self.session.predictors.tile_rates[self._rate_key] = rate
        self.changed.emit()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.show_failure(failure)
        self.changed.emit()


def _central_tiles(predictor: Predictor, slide: ViewerSlide) -> Target | None:
    """A few tiles in the centre of the tissue; None without tissue."""
    if predictor.precomputed_features is not None:
        target = predictor.precomputed_features.target_from_region()
    elif predictor.tissue.is_empty:
        return None
    else:
        size = slide.slide.width, slide.slide.height
        pitch_um = predictor.checkpoint.spot_pitch_um
        target = target_from_region(predictor.tissue, pitch_um, slide.mpp, *size)
    distance = np.hypot(*(target.spots.xy - target.spots.xy.mean(axis=0)).T)
    return target.take(np.argsort(distance)[:TIMING_SPOTS])
