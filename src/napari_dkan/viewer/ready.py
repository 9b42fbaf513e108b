"""Getting ready: what can be done before the person asks, so that asking is quick."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from psygnal import Signal
from shapely.geometry.base import BaseGeometry

from ..inference.target import Target, region_target
from .lane import Failure, Lane
from .links import Links
from .session import OpenSlide, Session

SAMPLE = 16  # spots predicted unseen to measure the rate


class Ready:
    """Finds the tissue and predicts a few spots when slide and checkpoint are chosen.

    The tiles around are encoded then, so the first click is quick, and the expected time
    of a job is a measured one.
    """

    changed = Signal()

    def __init__(self, session: Session, links: Links) -> None:
        self.session = session
        self._rate_key = session.rate_key()
        self._device = session.settings.device
        self._lane = Lane("getting ready")
        links.join(self.start, session.slide_changed, session.checkpoint_changed)
        links.join(self._settings_changed, session.settings_changed)

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def start(self) -> None:
        """Start over with the slide and the checkpoint of now."""
        session = self.session
        self._lane.cancel()
        self._rate_key = session.rate_key()
        slide, checkpoint = session.slide, session.checkpoint
        if slide is not None and slide.pixel_size is not None and checkpoint is not None:

            def job() -> Iterator[float | None]:
                predictor = session.predictor(slide, checkpoint)
                yield None
                target = _middle(predictor.tissue, slide, checkpoint.spot_pitch_um)
                if target is None:
                    return
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

            self._lane.start(job, self._receive, self._end)
        self.changed.emit()

    def _settings_changed(self) -> None:
        """Another device has to be warmed up and timed anew."""
        if self.session.settings.device != self._device:
            self._device = self.session.settings.device
            self.start()

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def _receive(self, rate: float | None) -> None:
        if rate is not None:
            self.session.rates[self._rate_key] = rate
        self.changed.emit()

    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self.session.say(failure.sentence, alarming=True)
        self.changed.emit()


def _middle(tissue: BaseGeometry, slide: OpenSlide, pitch_um: float) -> Target | None:
    """A few tiles in the middle of the tissue; None where there is no tissue."""
    if tissue.is_empty:
        return None
    size = slide.slide.width, slide.slide.height
    target = region_target(tissue, pitch_um, slide.mpp, *size)
    distance = np.hypot(*(target.spots.xy - target.spots.xy.mean(axis=0)).T)
    return target.take(np.argsort(distance)[:SAMPLE])
