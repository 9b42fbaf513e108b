"""Warnings about a slide that differs from the training data of the checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QLabel

from ....errors import SlideError
from ....inference.target import Target, target_from_region
from ...jobs.prefetcher import YIELD_SECONDS, Prefetcher
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import WARNING_COLOR, set_text_color
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ....inference.predictor import Predictor


SAMPLE_TILES = 64  # tiles of the tissue that are predicted for the check
SAMPLE_SEED = 2021


class SlideCheckBanner(QLabel):
    """Checks some tiles of a slide after the prefetching and shows a warning."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, prefetcher: Prefetcher
    ) -> None:
        super().__init__()
        self.setWordWrap(True)
        set_text_color(self, WARNING_COLOR)
        self.setVisible(False)
        self._session, self._prefetcher = session, prefetcher
        self._runner = JobRunner("looking at the slide", background=True)
        self._checked_key: tuple[object, ...] | None = None  # inputs of the current text
        connections.connect(self._start_check, prefetcher.changed)
        connections.connect(
            self._on_inputs_changed, session.slide_changed, session.checkpoint_changed
        )
        layers = session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        self._array_warning = self._scale_warning = self._tissue_warning = ""
        self._on_inputs_changed()

    @property
    def busy(self) -> bool:
        """Whether a check runs."""
        return self._runner.busy

    def stop_jobs(self) -> None:
        """Stop and wait for the thread."""
        self._runner.close()

    def _on_layers_changed(self, event: object = None) -> None:
        before, self._array_warning = self._array_warning, self._check_spot_arrays()
        if self._array_warning != before:
            self._show_warning(self._tissue_warning)

    def _check_spot_arrays(self) -> str:
        try:
            self._session.viewer_slides.check_spot_arrays()
        except SlideError as error:
            return str(error)
        return ""

    def _on_inputs_changed(self) -> None:
        self._on_layers_changed()
        if self._check_key() != self._checked_key:
            self._runner.cancel()
            self._checked_key = None
            self._scale_warning = self._check_pixel_size()
            self._show_warning("")

    def _check_pixel_size(self) -> str:
        from ....quality.slide_checks import check_pixel_size

        slide, checkpoint = self._session.slide, self._session.checkpoint
        if slide is None or slide.pixel_size is None or checkpoint is None:
            return ""
        size = slide.slide
        return check_pixel_size(checkpoint, slide.pixel_size, size.width, size.height)

    def _start_check(self) -> None:
        session, slide = self._session, self._session.slide
        checkpoint, key = session.checkpoint, self._check_key()
        if self._prefetcher.busy or self._runner.busy or key is None or key == self._checked_key:
            return
        if not session.settings.prefetch or slide is None or checkpoint is None:
            return
        if checkpoint.reference is None:
            return
        self._checked_key = key
        mpp = None if self._scale_warning else slide.mpp  # one warning of the scale is enough

        def job() -> Iterator[str]:
            from ....quality.slide_checks import check_domain_shift

            predictor = session.predictors.get(slide, checkpoint)
            target = _sample_tissue_tiles(predictor, slide)
            if target is None:
                return
            qc_features = []
            for update in predictor.stream(target, genes=()):
                while self._runner.is_foreground_busy():
                    time.sleep(YIELD_SECONDS)
                    yield ""
                if update.qc_features is not None:
                    qc_features.append(update.qc_features)
                yield ""
            if qc_features:
                yield check_domain_shift(checkpoint, np.concatenate(qc_features), mpp)

        self._runner.start(job, self._show_warning, self._on_job_end)

    def _check_key(self) -> tuple[object, ...] | None:
        session, slide = self._session, self._session.slide
        if slide is None or slide.pixel_size is None or session.checkpoint is None:
            return None
        return id(slide), slide.pixel_size, session.checkpoint.sha256

    def _show_warning(self, warning: str) -> None:
        self._tissue_warning = warning
        # One warning of the scale is enough.
        text = " ".join(s for s in (self._array_warning or self._scale_warning, warning) if s)
        self.setText(text)
        self.setVisible(bool(text))

    def _on_job_end(self, failure: JobFailure | None) -> None:
        """Ignore errors: the user's next prediction reports a damaged slide."""
        if failure is not None:
            self._show_warning("")


def _sample_tissue_tiles(predictor: Predictor, slide: ViewerSlide) -> Target | None:
    """Random tiles of the tissue; None without tissue."""
    if predictor.precomputed_features is not None:
        target = predictor.precomputed_features.target_from_region()
    elif predictor.tissue.is_empty:
        return None
    else:
        size = slide.slide.width, slide.slide.height
        pitch = predictor.checkpoint.spot_pitch_um
        target = target_from_region(predictor.tissue, pitch, slide.mpp, *size, predictor.tissue)
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(len(target))[:SAMPLE_TILES]
    return target.take(np.sort(chosen))
