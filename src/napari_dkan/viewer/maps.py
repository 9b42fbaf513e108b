"""Maps: predicting many tiles or spots as an overlay that fills while the person watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ..inference.job import OutOfMemory, Update
from ..inference.predict import empty_prediction
from ..inference.prediction import Prediction
from ..inference.target import Target
from .lane import Failure, Lane
from .links import Links
from .overlay import GridOverlay, Overlay, SpotsOverlay
from .session import OpenSlide, Session

REFRESH_SECONDS = 0.4  # how often a growing map is redrawn; drawing takes from predicting


@dataclass(frozen=True)
class Progress:
    """Where a job stands; ``rate`` (tiles/s) and ``left`` (s) are None until they are known."""

    stage: str
    done: int
    total: int
    rate: float | None = None
    left: float | None = None


class Maps:
    """Starts, follows and ends the map jobs of a session, one at a time."""

    changed = Signal()
    memory_out = Signal()  # the GPU could not hold one spot

    def __init__(self, session: Session, links: Links) -> None:
        self.session = session
        self.progress: Progress | None = None
        self._rate_key = session.rate_key()
        self._lane = Lane("map")
        self._overlay: Overlay | None = None
        self._slide: OpenSlide | None = None
        self._clock = _Clock()
        links.join(self._layers_gone, session.slides_changed, session.overlays_changed)

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def predict(self, target: Target, what: str) -> None:
        """Start predicting a target; ``what`` names it in the layer. Raises SpotsError."""
        session = self.session
        slide, checkpoint = session.ready_slide(), session.checkpoint
        zero_shot = session.zero_shot
        if self.busy:
            return
        assert checkpoint is not None and slide.pixel_size is not None
        order = visible_first(session, target.spots.xy * slide.mpp)
        origin = slide.pixel_size.origin

        def job() -> Iterator[Prediction | Update]:
            predictor = session.predictor(slide, checkpoint)
            prediction, _ = empty_prediction(predictor, target, origin, zero_shot=zero_shot)
            yield prediction
            yield from predictor.stream(target, order, zero_shot=zero_shot)

        def receive(item: Prediction | Update) -> None:
            if isinstance(item, Prediction):
                self._overlay = self._new_overlay(item, f"{what}, {slide.layer.name}")
                session.add_overlay(self._overlay, slide)
            else:
                self._follow(item)

        self._overlay, self._slide, self._clock = None, slide, _Clock()
        self._rate_key = session.rate_key()
        self.progress = Progress("starting", 0, len(target))
        session.say("")
        self._lane.start(job, receive, self._end)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop; tiles that are finished stay."""
        if not self.busy:
            return
        self._lane.cancel()
        done = int(self._overlay.prediction.done.sum()) if self._overlay else 0
        self._finish()
        self.session.say(f"Cancelled; {done:,} finished tiles are kept." if done else "Cancelled.")

    def _follow(self, update: Update) -> None:
        if self._overlay is None:
            return
        if update.stage == "spots":
            self._overlay.prediction.fill(update.rows, update.values)
            if self._clock.due() or update.done == update.total:
                self.session.overlay_grew.emit(self._overlay)
        self.progress = self._clock.progress(update)
        self.changed.emit()

    def _end(self, failure: Failure | None) -> None:
        session, seconds = self.session, self._clock.seconds
        done = int(self._overlay.prediction.done.sum()) if self._overlay else 0
        if failure is None:
            self.session.rates[self._rate_key] = done / max(seconds, 1e-3)
            session.say(f"{done:,} tiles predicted in {seconds:.1f} s.")
        self._finish()
        if failure is not None:
            kept = f" {done:,} finished tiles are kept." if done else ""
            session.say(failure.sentence + kept, alarming=True)
            if isinstance(failure.error, OutOfMemory):
                self.memory_out.emit()

    def _finish(self) -> None:
        """Redraw what is there; a map without a single tile leaves no empty layer."""
        session, overlay = self.session, self._overlay
        self._overlay, self._slide, self.progress = None, None, None
        if overlay is not None and overlay.layer in session.viewer.layers:
            if overlay.prediction.done.any():
                session.overlay_grew.emit(overlay)
            else:
                session.viewer.layers.remove(overlay.layer)
        self.changed.emit()

    def _new_overlay(self, prediction: Prediction, what: str) -> Overlay:
        mpp, opacity = prediction.provenance["mpp"], self.session.settings.opacity
        if prediction.target.grid is not None:
            return GridOverlay(prediction, mpp, what, opacity)
        size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
        return SpotsOverlay(prediction, mpp, size, what, opacity)

    def _layers_gone(self) -> None:
        """The slide's or the map's layer was deleted: the job has nothing to work for."""
        if not self.busy:
            return
        overlay_gone = self._overlay is not None and self._overlay not in self.session.overlays
        if overlay_gone or self._slide not in self.session.slides:
            self.cancel()


class _Clock:
    """Times a job: when to redraw, how fast it goes, how long it still takes."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._drawn = 0.0  # the first tiles are shown at once
        self._stage, self._since, self._before = "", self._start, 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def due(self) -> bool:
        """Whether it is time to redraw; counts as drawn then."""
        now = time.perf_counter()
        if now - self._drawn < REFRESH_SECONDS:
            return False
        self._drawn = now
        return True

    def progress(self, update: Update) -> Progress:
        """The rate counts from the first update of a stage, which pays for starting up."""
        now = time.perf_counter()
        if update.stage != self._stage:
            self._stage, self._since, self._before = update.stage, now, update.done
        done, seconds = update.done - self._before, now - self._since
        rate = done / seconds if done and seconds > 0.05 else None
        left = None if rate is None else (update.total - update.done) / rate
        return Progress(update.stage, update.done, update.total, rate, left)


def visible_first(session: Session, world_xy: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows ordered by what the camera shows: on the canvas first, then by distance."""
    camera, canvas = session.viewer.scene.camera, session.viewer.canvas
    offset = np.abs(world_xy - np.array(camera.center[-2:])[::-1])
    half = np.array(canvas.size)[::-1] / (2 * max(camera.zoom, 1e-9))
    hidden = (offset > half).any(axis=1)
    return np.lexsort((np.hypot(*offset.T), hidden))
