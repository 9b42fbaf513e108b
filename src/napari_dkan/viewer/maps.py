"""Maps: predicting many tiles or spots as an overlay that fills while the person watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from ..inference.job import OutOfMemory, Update
from ..inference.predict import empty_prediction
from ..inference.prediction import Prediction
from ..inference.rough import rough_target
from ..inference.target import Target
from .lane import Failure, Lane
from .links import Links
from .looking import Looking
from .overlay import Decode, GridOverlay, Overlay, SpotsOverlay
from .session import OpenSlide, Session

if TYPE_CHECKING:
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint

REFRESH_SECONDS = 0.6  # how often a growing map is redrawn; drawing takes from predicting


@dataclass(frozen=True)
class Progress:
    """Where a job stands; ``rate`` (tiles/s) and ``left`` (s) are None until they are known."""

    stage: str
    done: int
    total: int
    rate: float | None = None
    left: float | None = None


@dataclass(frozen=True)
class _Started:
    """The empty prediction of a job, and what decodes its genes."""

    prediction: Prediction
    decode: Decode


@dataclass(frozen=True)
class _Rough:
    """What happened to the rough map of a job."""

    what: Prediction | Update


class Maps:
    """Starts, follows and ends the map jobs of a session, one at a time."""

    changed = Signal()
    memory_out = Signal()  # the GPU could not hold one spot

    def __init__(self, session: Session, links: Links, looking: Looking) -> None:
        self.session = session
        self.progress: Progress | None = None
        self._looking = looking
        self._rate_key = session.rate_key()
        self._lane = Lane("map")
        self._overlay: Overlay | None = None
        self._slide: OpenSlide | None = None
        self._last: tuple[Overlay, OpenSlide, Checkpoint, ZeroShotGenes | None] | None = None
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
        order, origin = self._looking.order(slide), slide.pixel_size.origin

        def job() -> Iterator[_Started | Update | _Rough]:
            predictor = session.predictor(slide, checkpoint)
            prediction, _ = empty_prediction(predictor, target, origin, zero_shot=zero_shot)
            yield _Started(prediction, partial(predictor.decode, zero_shot=zero_shot))
            genes = partial(_shown, session, prediction)
            mostly_known = predictor.known(target) > len(target) / 2
            rough = None if mostly_known else rough_target(target)
            if rough is not None:
                coarse, _ = empty_prediction(predictor, rough, origin, zero_shot=zero_shot)
                yield _Rough(coarse)
                for update in predictor.stream(rough, None, genes, zero_shot):
                    yield _Rough(update)
            yield from predictor.stream(target, order, genes, zero_shot)

        def receive(item: _Started | Update | _Rough) -> None:
            if isinstance(item, _Started):
                self._overlay = _overlay(item, f"{what}, {slide.layer.name}", session)
                self._overlay.reference = checkpoint.reference
                session.add_overlay(self._overlay, slide)
                self._last = (self._overlay, slide, checkpoint, zero_shot)
            else:
                self._follow(item)

        self._begin(slide, len(target))
        self._lane.start(job, receive, self._end)
        self.changed.emit()

    @property
    def failed(self) -> int:
        """How many tiles of the last map could not be predicted."""
        if self._last is None or self._last[0] not in self.session.overlays:
            return 0
        return int(self._last[0].prediction.failed.sum())

    def retry(self) -> None:
        """Try the failed tiles of the last map again."""
        if self.busy or not self.failed or self._last is None:
            return
        session = self.session
        overlay, slide, checkpoint, zero_shot = self._last
        prediction = overlay.prediction
        rows = np.flatnonzero(prediction.failed)

        def job() -> Iterator[Update]:
            predictor = session.predictor(slide, checkpoint)
            genes = partial(_shown, session, prediction)
            yield from predictor.stream(prediction.target, rows, genes, zero_shot)

        self._begin(slide, len(rows))
        self._overlay = overlay
        self._lane.start(job, self._follow, self._end)
        self.changed.emit()

    def _begin(self, slide: OpenSlide, total: int) -> None:
        self._overlay, self._slide, self._clock = None, slide, _Clock()
        self._rate_key = self.session.rate_key()
        self.progress = Progress("starting", 0, total)
        self.session.say("")

    def cancel(self) -> None:
        """Stop; tiles that are finished stay."""
        if not self.busy:
            return
        self._lane.cancel()
        done = int(self._overlay.prediction.done.sum()) if self._overlay else 0
        self._finish()
        self.session.say(f"Cancelled; {done:,} finished tiles are kept." if done else "Cancelled.")

    def _follow(self, item: Update | _Rough) -> None:
        overlay, session = self._overlay, self.session
        if overlay is None:
            return
        if isinstance(item, _Rough):
            update, drawn = self._follow_rough(overlay, item.what)
        else:
            update, drawn = item, bool(len(item.rows))
            overlay.prediction.fill(update)
        if update is None:
            return
        if drawn and (self._clock.due() or update.done == update.total):
            session.overlay_grew.emit(overlay)
        self.progress = self._clock.progress(update)
        self.changed.emit()

    def _follow_rough(
        self, overlay: Overlay, what: Prediction | Update
    ) -> tuple[Update | None, bool]:
        if isinstance(what, Prediction):
            if isinstance(overlay, GridOverlay):
                overlay.show_rough(what)
            return None, False
        if overlay.rough is not None:
            overlay.rough.fill(what)
        return replace(what, stage="rough"), bool(len(what.rows))

    def _end(self, failure: Failure | None) -> None:
        session, seconds = self.session, self._clock.seconds
        done = int(self._overlay.prediction.done.sum()) if self._overlay else 0
        fresh, failed = self._clock.fresh, self.failed
        self._finish()
        if failure is not None:
            kept = f" {done:,} finished tiles are kept." if done else ""
            session.say(failure.sentence + kept, alarming=True)
            if isinstance(failure.error, OutOfMemory):
                self.memory_out.emit()
            return
        if fresh:
            session.rates[self._rate_key] = fresh / max(seconds, 1e-3)
        said = [f"{done:,} tiles predicted in {seconds:.1f} s."]
        if failed:
            said.append(f"{failed:,} could not be read: the slide is damaged there.")
        session.say(" ".join([*said, session.store_note()]).strip(), alarming=bool(failed))

    def _finish(self) -> None:
        """Redraw what is there; a map without a single tile leaves no empty layer."""
        session, overlay = self.session, self._overlay
        self._overlay, self._slide, self.progress = None, None, None
        if overlay is not None and overlay.layer in session.viewer.layers:
            overlay.rough = None  # what is not predicted stays empty
            if overlay.prediction.done.all():
                session.overlay_grew.emit(overlay)
            elif overlay.prediction.done.any():
                session.overlays_changed.emit()  # with the limits of what is there
            else:
                session.viewer.layers.remove(overlay.layer)
        self.changed.emit()

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
        self._last: Progress | None = None  # of the tiles themselves
        self.fresh = 0  # tiles predicted, not known before

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
        """The rate counts from the first update of a stage, which pays for starting up.

        Surroundings that are read between tiles belong to the tiles.
        """
        now = time.perf_counter()
        if update.stage == "context" and self._last is not None:
            return replace(self._last, stage="context")
        if update.stage == "spots":
            self.fresh += len(update.rows)
        if update.stage != self._stage:
            self._stage, self._since, self._before = update.stage, now, update.done
        done, seconds = update.done - self._before, now - self._since
        rate = done / seconds if done and seconds > 0.05 else None
        left = None if rate is None else (update.total - update.done) / rate
        made = Progress(update.stage, update.done, update.total, rate, left)
        self._last = made if update.stage == "spots" else None
        return made


def _overlay(started: _Started, what: str, session: Session) -> Overlay:
    prediction, decode = started.prediction, started.decode
    mpp, opacity = prediction.provenance["mpp"], session.settings.opacity
    if prediction.target.grid is not None:
        return GridOverlay(prediction, decode, mpp, what, opacity)
    size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
    return SpotsOverlay(prediction, decode, mpp, size, what, opacity)


def _shown(session: Session, prediction: Prediction) -> list[int]:
    """Columns to decode with every batch: the gene that is shown now. Called in a thread."""
    gene = session.gene
    known = gene is not None and gene in prediction.panel
    return [prediction.panel.row(gene or "")] if known else []
