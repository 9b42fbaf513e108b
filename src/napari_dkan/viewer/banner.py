"""Sentences across the panel when a slide is far from what the checkpoint was trained on.

Its scale is compared at once, before anything is predicted; how its tissue looks, on some tiles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QLabel

from ..inference.target import Target, region_target
from .lane import Failure, Lane
from .links import Links
from .ready import GIVE_WAY, Ready
from .session import OpenSlide, Session
from .tones import WARNING, tint

if TYPE_CHECKING:
    from ..inference.engine import Predictor

SAMPLE = 64  # tiles of the tissue, predicted to see what the slide is like
SEED = 2021


class Banner(QLabel):
    """Looks at some tiles of a slide once everything is ready, and says what is unusual."""

    def __init__(self, session: Session, links: Links, ready: Ready) -> None:
        super().__init__()
        self.setWordWrap(True)
        tint(self, WARNING)
        self.setVisible(False)
        self._session, self._ready = session, ready
        self._lane = Lane("looking at the slide")
        self._seen: tuple[object, ...] | None = None  # what the sentence is about
        links.join(self._start, ready.changed)
        links.join(self._changed, session.slide_changed, session.checkpoint_changed)
        self._scale = ""
        self._changed()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close_lane(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def _changed(self) -> None:
        if self._key() != self._seen:
            self._lane.cancel()
            self._seen = None
            self._scale = self._of_scale()
            self._say("")

    def _of_scale(self) -> str:
        from ..quality.scale_check import check_scale

        slide, checkpoint = self._session.slide, self._session.checkpoint
        if slide is None or slide.pixel_size is None or checkpoint is None:
            return ""
        size = slide.slide
        return check_scale(checkpoint, slide.pixel_size, size.width, size.height)

    def _start(self) -> None:
        session, slide = self._session, self._session.slide
        checkpoint, key = session.checkpoint, self._key()
        if self._ready.busy or self._lane.busy or key is None or key == self._seen:
            return
        if not session.settings.warm_up or slide is None or checkpoint is None:
            return
        if checkpoint.reference is None:
            return
        self._seen = key
        mpp = None if self._scale else slide.mpp  # what was said of the scale is not said twice

        def job() -> Iterator[str]:
            from ..quality.slide_check import check_slide

            predictor = session.predictor(slide, checkpoint)
            target = _some_tissue(predictor, slide)
            if target is None:
                return
            evidence = []
            for update in predictor.stream(target, genes=()):
                while self._lane.others_busy():  # gives way to whatever is waited for
                    time.sleep(GIVE_WAY)
                    yield ""
                if update.evidence is not None:
                    evidence.append(update.evidence)
                yield ""
            if evidence:
                yield check_slide(checkpoint, np.concatenate(evidence), mpp)

        self._lane.start(job, self._say, self._end)

    def _key(self) -> tuple[object, ...] | None:
        session, slide = self._session, self._session.slide
        if slide is None or slide.pixel_size is None or session.checkpoint is None:
            return None
        return id(slide), slide.pixel_size, session.checkpoint.sha256

    def _say(self, sentence: str) -> None:
        text = " ".join(s for s in (self._scale, sentence) if s)
        self.setText(text)
        self.setVisible(bool(text))

    def _end(self, failure: Failure | None) -> None:
        """What a person does next tells them of a damaged slide; this look was only ours."""
        if failure is not None:
            self._say("")


def _some_tissue(predictor: Predictor, slide: OpenSlide) -> Target | None:
    """Tiles all over the tissue; None where there is no tissue."""
    if predictor.ready is not None:
        target = predictor.ready.target()
    elif predictor.tissue.is_empty:
        return None
    else:
        size = slide.slide.width, slide.slide.height
        pitch = predictor.checkpoint.spot_pitch_um
        target = region_target(predictor.tissue, pitch, slide.mpp, *size, predictor.tissue)
    chosen = np.random.default_rng(SEED).permutation(len(target))[:SAMPLE]
    return target.take(np.sort(chosen))
