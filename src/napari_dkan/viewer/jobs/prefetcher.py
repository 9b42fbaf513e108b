"""Computations in advance: the tissue, the prediction rate and the context of the current view."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
    """False where there is no battery or nobody knows."""
    ask = getattr(psutil, "sensors_battery", None)  # not on every system
    try:
        battery = ask() if ask is not None else None
    except (OSError, RuntimeError):
        return False
    return battery is not None and battery.power_plugged is False


TIMING_SPOTS = 16  # spots predicted unseen to measure the rate
VIEW_REST_MS = 400  # the view rests so long before its surroundings are computed
YIELD_SECONDS = 0.02  # seconds between two looks whether somebody waits for something


class Prefetcher:
    """Finds the tissue and, as long as nothing else runs, computes what lies around the view.

    So a click is quick, and the expected time of a job is a measured one. Only the tissue is
    looked for where warming up is switched off, or the computer runs on its battery.
    """

    changed = Signal()

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, viewport: Viewport
    ) -> None:
        self.session = session
        self._viewport = viewport
        self._rate_key = session.rate_key()
        self._last_settings = self._relevant_settings()
        self._runner = JobRunner("getting ready")
        self._view_debouncer = Debouncer(VIEW_REST_MS, self._on_view_rest)
        connections.connect(self.restart, session.slide_changed, session.checkpoint_changed)
        connections.connect(self._on_settings_changed, session.settings_changed)
        camera = session.viewer.scene.camera
        connections.connect(self._on_camera_moved, camera.events.center, camera.events.zoom)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def restart(self) -> None:
        """Start over with the slide and the checkpoint of now."""
        session = self.session
        self._runner.cancel()
        self._rate_key = session.rate_key()
        slide, checkpoint = session.slide, session.checkpoint
        if slide is not None and slide.pixel_size is not None and checkpoint is not None:

            def job() -> Iterator[float | str | None]:
                predictor = session.predictors.get(slide, checkpoint)
                yield None
                if not self._is_enabled:
                    return
                if (
                    predictor.precomputed_features is not None
                    and predictor.precomputed_features.note
                ):
                    yield predictor.precomputed_features.note
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
        """Predict a few tiles and tell how many a second."""
        start, count = 0.0, 0
        for update in predictor.stream(target):
            now = time.perf_counter()
            if update.stage == "spots" and start:
                count += len(update.rows)
                yield count / max(now - start, 1e-6)
                continue
            if update.stage == "spots":  # the first batch pays for starting up
                start = now
            yield None

    def _precompute_view(self, predictor: Predictor, slide: ViewerSlide) -> Iterator[None]:
        """What a click in the middle of the view would see, and a quicker way to compute it."""
        x, y = self._viewport.extent.centre
        middle = swap_xy(np.asarray([slide.layer.world_to_data((y, x))[-2:]]))
        for _ in chain(predictor.precompute_context(middle), predictor.trace_for_latency()):
            while self._runner.is_any_other_busy():  # gives way to whatever is waited for
                time.sleep(YIELD_SECONDS)
                yield None
            yield None

    def _on_camera_moved(self, event: object = None) -> None:
        self._view_debouncer.start()

    def _on_view_rest(self) -> None:
        """The view rests somewhere else: compute what lies around it."""
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
        """Another device has to be warmed up and timed anew."""
        if self._relevant_settings() != self._last_settings:
            self._last_settings = self._relevant_settings()
            self.restart()

    def _relevant_settings(self) -> tuple[object, ...]:
        settings = self.session.settings
        file = self.session.predictors.feature_file(self.session.slide)
        return settings.device, settings.prefetch, settings.store_tiles, file

    def close(self) -> None:
        self._view_debouncer.stop()
        self._runner.cancel()
        self._runner.wait()

    def _on_item(self, rate: float | str | None) -> None:
        if isinstance(rate, str):
            self.session.message.show(rate, warning=True)
        elif rate is not None:
            self.session.predictors.tile_rates[self._rate_key] = rate
        self.changed.emit()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.message.show(failure.message, warning=True)
        self.changed.emit()


def _central_tiles(predictor: Predictor, slide: ViewerSlide) -> Target | None:
    """A few tiles in the middle of the tissue; None where there is no tissue."""
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
