"""Getting ready: what can be done before the person asks, so that asking is quick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

import numpy as np
from psygnal import Signal

from ..inference.engine import Predictor
from ..inference.target import Target, region_target
from ..spatial.coordinates import swap_xy
from .lane import Failure, Lane
from .later import Later
from .links import Links
from .looking import Looking
from .power import on_battery
from .session import OpenSlide, Session

SAMPLE = 16  # spots predicted unseen to measure the rate
STILL_MS = 400  # the view rests so long before its surroundings are computed
GIVE_WAY = 0.02  # seconds between two looks whether somebody waits for something


class Ready:
    """Finds the tissue and, as long as nothing else runs, computes what lies around the view.

    So a click is quick, and the expected time of a job is a measured one. Only the tissue is
    looked for where warming up is switched off, or the computer runs on its battery.
    """

    changed = Signal()

    def __init__(self, session: Session, links: Links, looking: Looking) -> None:
        self.session = session
        self._looking = looking
        self._rate_key = session.rate_key()
        self._chosen = self._choice()
        self._lane = Lane("getting ready")
        self._still = Later(STILL_MS, self._look_around)
        links.join(self.start, session.slide_changed, session.checkpoint_changed)
        links.join(self._settings_changed, session.settings_changed)
        camera = session.viewer.scene.camera
        links.join(self._moved, camera.events.center, camera.events.zoom)

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

            def job() -> Iterator[float | str | None]:
                predictor = session.predictor(slide, checkpoint)
                yield None
                if not self._warm:
                    return
                if predictor.ready is not None and predictor.ready.note:
                    yield predictor.ready.note
                target = _middle(predictor, slide)
                if target is not None:
                    yield from self._timed(predictor, target)
                    yield from self._around(predictor, slide)

            self._lane.start(job, self._receive, self._end)
        self.changed.emit()

    @property
    def _warm(self) -> bool:
        return self.session.settings.warm_up and not on_battery()

    def _timed(self, predictor: Predictor, target: Target) -> Iterator[float | None]:
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

    def _around(self, predictor: Predictor, slide: OpenSlide) -> Iterator[None]:
        """What a click in the middle of the view would see, and a quicker way to compute it."""
        x, y = self._looking.view.centre
        middle = swap_xy(np.asarray([slide.layer.world_to_data((y, x))[-2:]]))
        for _ in chain(predictor.surround(middle), predictor.quicken()):
            while self._lane.others_busy():  # gives way to whatever is waited for
                time.sleep(GIVE_WAY)
                yield None
            yield None

    def _moved(self, event: object = None) -> None:
        self._still.start()

    def _look_around(self) -> None:
        """The view rests somewhere else: compute what lies around it."""
        session = self.session
        slide, checkpoint = session.slide, session.checkpoint
        if self.busy or slide is None or slide.tissue is None or checkpoint is None:
            return
        if slide.pixel_size is None or not self._warm:
            return

        def job() -> Iterator[None]:
            yield from self._around(session.predictor(slide, checkpoint), slide)

        self._lane.start(job, self._receive, self._end)

    def _settings_changed(self) -> None:
        """Another device has to be warmed up and timed anew."""
        if self._choice() != self._chosen:
            self._chosen = self._choice()
            self.start()

    def _choice(self) -> tuple[object, ...]:
        settings = self.session.settings
        file = self.session.feature_files.of(self.session.slide)
        return settings.device, settings.warm_up, settings.store, file

    def close(self) -> None:
        self._still.stop()
        self._lane.cancel()
        self._lane.wait()

    def _receive(self, rate: float | str | None) -> None:
        if isinstance(rate, str):
            self.session.say(rate, alarming=True)
        elif rate is not None:
            self.session.rates[self._rate_key] = rate
        self.changed.emit()

    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self.session.say(failure.sentence, alarming=True)
        self.changed.emit()


def _middle(predictor: Predictor, slide: OpenSlide) -> Target | None:
    """A few tiles in the middle of the tissue; None where there is no tissue."""
    if predictor.ready is not None:
        target = predictor.ready.target()
    elif predictor.tissue.is_empty:
        return None
    else:
        size = slide.slide.width, slide.slide.height
        pitch_um = predictor.checkpoint.spot_pitch_um
        target = region_target(predictor.tissue, pitch_um, slide.mpp, *size)
    distance = np.hypot(*(target.spots.xy - target.spots.xy.mean(axis=0)).T)
    return target.take(np.argsort(distance)[:SAMPLE])
