"""Prediction of many tiles or spots as an overlay that fills up while the job runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from ...inference.device_choice import resolve_device_name
from ...inference.predict import build_zero_shot_record, create_empty_prediction
from ...inference.prediction import Prediction
from ...inference.prediction_progress import PredictionUpdate
from ...inference.target import Target, make_coarse_target
from ..layers.prediction_layers import GridOverlay, SpotsOverlay
from ..session.prediction_overlay import GeneDecoder, PredictionOverlay
from ..session.slide_layer import ViewerSlide
from ..session.user_history import add_run_time
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner
from .job_progress import JobTimer, PredictionProgress
from .map_extension import extend_map, find_extendable_map, take_place
from .run_times import MIN_RUN_TILES
from .viewport import Viewport

if TYPE_CHECKING:
    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint
    from ...slide import PixelSize


@dataclass(frozen=True)
class _JobStarted:
    """The prediction that a job fills, its rows of the target, and the map that it replaces."""

    prediction: Prediction
    decode: GeneDecoder
    rows: NDArray[np.int64]
    previous: PredictionOverlay | None


@dataclass(frozen=True)
class _RoughUpdate:
    """An update of the rough map of a job."""

    item: Prediction | PredictionUpdate


class PredictionJobs:
    """Runs the map jobs of a session, one at a time."""

    changed = Signal()

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, viewport: Viewport
    ) -> None:
        self.session = session
        self.progress: PredictionProgress | None = None
        self._viewport = viewport
        self._rate_key = session.rate_key()
        self._runner = JobRunner("map")
        self._overlay: PredictionOverlay | None = None
        self._slide: ViewerSlide | None = None
        self._rows = np.empty(0, np.int64)  # of the map that the job predicts
        self._pixel_size: PixelSize | None = None  # of the slide when the job started
        self._last_job: (
            tuple[PredictionOverlay, ViewerSlide, Checkpoint, ZeroShotGenes | None] | None
        ) = None
        self._timer = JobTimer()
        self._outcome = ""  # what was last said of a run that has ended
        connections.connect(
            self._cancel_if_outdated,
            session.slides_changed,
            session.slide_changed,
            session.overlays_changed,
        )

    @property
    def busy(self) -> bool:
        """Whether a map is being predicted."""
        return self._runner.busy

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._runner.close()

    def wait(self) -> bool:
        """Wait for the threads of ended jobs; return False after a timeout."""
        return self._runner.wait()

    def predict(self, target: Target) -> None:
        """Start to predict a target; does nothing while a job runs.

        Parameters
        ----------
        target : Target

        Raises
        ------
        SpotsError
            If a slide, its pixel size or a checkpoint is missing.
        """
        session = self.session
        slide, checkpoint = session.require_slide(), session.checkpoint
        zero_shot = session.zero_shot
        if self.busy:
            return
        assert checkpoint is not None and slide.pixel_size is not None
        order, origin = self._viewport.make_order(slide), slide.pixel_size.origin
        previous = find_extendable_map(session, target)

        def job() -> Iterator[_JobStarted | PredictionUpdate | _RoughUpdate]:
            predictor = session.predictors.get(slide, checkpoint)
            create_empty = partial(
                create_empty_prediction, predictor, mpp_origin=origin, zero_shot=zero_shot
            )
            prediction, rows, extended = extend_map(create_empty, target, previous)
            decode = partial(predictor.decode, zero_shot=zero_shot)
            yield _JobStarted(prediction, decode, rows, extended)
            genes = partial(_shown_columns, session, prediction, checkpoint)
            mostly_cached = predictor.count_cached_spots(target) > len(target) / 2
            rough = None if mostly_cached else make_coarse_target(target)
            if rough is not None:
                coarse, _ = create_empty(rough)
                yield _RoughUpdate(coarse)
                for update in predictor.stream(rough, None, genes, zero_shot):
                    yield _RoughUpdate(update)
            for update in predictor.stream(target, order, genes, zero_shot):
                yield replace(update, rows=rows[update.rows], failed_rows=rows[update.failed_rows])

        def receive(item: _JobStarted | PredictionUpdate | _RoughUpdate) -> None:
            if isinstance(item, _JobStarted):
                self._rows = item.rows
                self._overlay = self._show_start(item, slide, checkpoint)
                self._last_job = (self._overlay, slide, checkpoint, zero_shot)
            else:
                self._on_update(item)

        self._reset_progress(slide, len(target))
        if previous is None:
            # napari needs a moment for a layer and its controls, so they come before the thread
            # that would take turns with it.
            prediction = _make_placeholder(target, slide, checkpoint, zero_shot)
            self._overlay = self._add_overlay(prediction, _decode_nothing, slide, checkpoint)
        self._runner.start(job, receive, self._on_job_end)
        self.changed.emit()

    def _add_overlay(
        self,
        prediction: Prediction,
        decode: GeneDecoder,
        slide: ViewerSlide,
        checkpoint: Checkpoint,
    ) -> PredictionOverlay:
        overlay = _make_overlay(prediction, decode, self.session.settings.opacity)
        overlay.reference = checkpoint.reference
        self.session.add_overlay(overlay, slide)
        return overlay

    def _show_start(
        self, started: _JobStarted, slide: ViewerSlide, checkpoint: Checkpoint
    ) -> PredictionOverlay:
        """Fill the layer that was made for the job, or that of the map that it extends."""
        session, overlay, previous = self.session, self._overlay, started.previous
        prediction, decode = started.prediction, started.decode
        if overlay is not None:
            session.fill_overlay(overlay, prediction, decode)
            return overlay
        if previous not in session.overlays or not isinstance(previous, GridOverlay):
            return self._add_overlay(prediction, decode, slide, checkpoint)
        layer = previous.layer
        extended = GridOverlay(prediction, decode, slide.mpp, layer.opacity, layer)
        extended.reference = checkpoint.reference
        take_place(session, extended, previous)
        return extended

    @property
    def failed_count(self) -> int:
        """Number of tiles of the last map that could not be predicted."""
        if self._last_job is None or self._last_job[0] not in self.session.overlays:
            return 0
        return int(self._last_job[0].prediction.failed_mask.sum())

    def retry_failed(self) -> None:
        """Predict the failed tiles of the last map again."""
        if self.busy or not self.failed_count or self._last_job is None:
            return
        session = self.session
        overlay, slide, checkpoint, zero_shot = self._last_job
        prediction = overlay.prediction
        rows = np.flatnonzero(prediction.failed_mask)

        def job() -> Iterator[PredictionUpdate]:
            predictor = session.predictors.get(slide, checkpoint)
            genes = partial(_shown_columns, session, prediction, checkpoint)
            yield from predictor.stream(prediction.target, rows, genes, zero_shot)

        self._reset_progress(slide, len(rows))
        self._overlay, self._rows = overlay, np.arange(len(prediction.target))
        self._runner.start(job, self._on_update, self._on_job_end)
        self.changed.emit()

    def _reset_progress(self, slide: ViewerSlide, total: int) -> None:
        self._overlay, self._slide, self._timer = None, slide, JobTimer()
        self._rows = np.empty(0, np.int64)
        self._pixel_size = slide.pixel_size
        self._rate_key = self.session.rate_key()
        self.progress = PredictionProgress("starting", 0, total)
        self.session.message.clear()

    def cancel(self) -> None:
        """Stop; finished tiles stay."""
        if not self.busy:
            return
        self._runner.cancel()
        done = self._count_done()
        self._finish()
        self._show_outcome(
            f"Cancelled; {done:,} finished tiles are kept." if done else "Cancelled."
        )

    def _on_update(self, item: PredictionUpdate | _RoughUpdate) -> None:
        overlay, session = self._overlay, self.session
        if overlay is None:
            return
        if isinstance(item, _RoughUpdate):
            update, drawn = self._on_rough_update(overlay, item.item)
        else:
            update, drawn = item, bool(len(item.rows))
            overlay.prediction.apply_update(update)
        if update is None:
            return
        # The bar repaints at once, so it comes before there is a new map to be painted.
        self.progress = self._timer.progress(update)
        self.changed.emit()
        is_rough_done = update.stage == "rough" and update.done == update.total
        if drawn and (is_rough_done or self._timer.is_redraw_due()):  # `_finish` draws the rest
            start = time.perf_counter()
            session.overlay_updated.emit(overlay)
            # Qt paints before it comes to a timer, so this is after the frame.
            QTimer.singleShot(0, partial(self._timer.end_redraw, start))

    def _on_rough_update(
        self, overlay: PredictionOverlay, item: Prediction | PredictionUpdate
    ) -> tuple[PredictionUpdate | None, bool]:
        if isinstance(item, Prediction):
            if isinstance(overlay, GridOverlay):
                overlay.set_rough(item)
            return None, False
        if overlay.rough is not None:
            overlay.rough.apply_update(item)
        return replace(item, stage="rough"), bool(len(item.rows))

    def _on_job_end(self, failure: JobFailure | None) -> None:
        session, seconds = self.session, self._timer.seconds
        done = self._count_done()
        fresh, failed = self._timer.predicted_count, self.failed_count
        self._finish()
        if failure is not None:
            note = f" {done:,} finished tiles are kept." if done else ""
            self._outcome = failure.message + note
            session.show_failure(failure, note)
            return
        if fresh:
            session.predictors.tile_rates[self._rate_key] = fresh / max(seconds, 1e-3)
        if fresh >= MIN_RUN_TILES:
            add_run_time(self._rate_key[1], resolve_device_name(self._rate_key[2]), fresh, seconds)
        parts = [f"{done:,} tiles predicted in {seconds:.1f} s."]
        if failed:
            parts.append(f"{failed:,} could not be read: the slide is damaged there.")
        self._show_outcome(
            " ".join([*parts, session.predictors.take_store_warning()]).strip(),
            warning=bool(failed),
        )

    def _show_outcome(self, text: str, warning: bool = False) -> None:
        self._outcome = text
        self.session.message.show(text, warning)

    def clear_outcome(self) -> None:
        """Remove the message about the last run, unless another one has replaced it."""
        if self._outcome and self.session.message.text == self._outcome:
            self.session.message.clear()
        self._outcome = ""

    def _count_done(self) -> int:
        """Number of tiles of the job that are predicted."""
        if self._overlay is None:
            return 0
        return int(self._overlay.prediction.predicted_mask[self._rows].sum())

    def _finish(self) -> None:
        """Draw the finished tiles; remove the layer of a map without any tile."""
        session, overlay = self.session, self._overlay
        self._overlay, self._slide, self.progress = None, None, None
        if overlay is not None and overlay.layer in session.viewer.layers:
            overlay.rough = None  # what is not predicted stays empty
            if overlay.prediction.predicted_mask.all():
                session.overlay_updated.emit(overlay)
            elif overlay.prediction.predicted_mask.any():
                session.overlays_changed.emit()  # with the limits of what is there
            else:
                session.layers.remove(overlay.layer)
        self.changed.emit()

    def _cancel_if_outdated(self) -> None:
        """Cancel when the layer of slide or map was removed, or the pixel size is another."""
        slide = self._slide
        if not self.busy or slide is None:
            return
        overlay_gone = self._overlay is not None and self._overlay not in self.session.overlays
        is_open = slide in self.session.slides and slide.pixel_size == self._pixel_size
        if overlay_gone or not is_open:
            self.cancel()


def _make_overlay(prediction: Prediction, decode: GeneDecoder, opacity: float) -> PredictionOverlay:
    mpp = prediction.provenance["mpp"]
    if prediction.target.grid is not None:
        return GridOverlay(prediction, decode, mpp, opacity)
    size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
    overlay = SpotsOverlay(prediction, decode, mpp, size, opacity)
    overlay.label = "spots"
    return overlay


def _make_placeholder(
    target: Target, slide: ViewerSlide, checkpoint: Checkpoint, zero_shot: ZeroShotGenes | None
) -> Prediction:
    """A prediction for the moment before the job has made its own."""
    from ...expression.panel import Panel

    panel = checkpoint.panel
    symbols: tuple[str, ...] = ()
    record: dict[str, Any] = {
        "checkpoint_sha256": checkpoint.sha256,
        "slide_fingerprint": slide.slide.fingerprint(),
        "mpp": slide.mpp,
        "patch_um": checkpoint.patch.um,
    }
    if zero_shot is not None and zero_shot.genes:
        panel, symbols = Panel((*panel.genes, *zero_shot.genes)), zero_shot.symbols
        record["zero_shot"] = build_zero_shot_record(checkpoint, zero_shot)
    scale = checkpoint.label_scale
    return Prediction.create_placeholder(target, panel, scale, record, symbols)


def _decode_nothing(tokens: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
    """The decoder of a placeholder, which has no tile."""
    return np.full((len(tokens), len(columns)), np.nan, np.float32)


def _shown_columns(
    session: ViewerSession, prediction: Prediction, checkpoint: Checkpoint
) -> list[int] | None:
    """Columns to decode with every batch: the gene that is shown. Called in a thread.

    All of a network whose genes are decoded at once.
    """
    if checkpoint.network.draws_samples:
        return None
    gene, prediction = session.gene, replace(prediction, scores=session.scores)
    return prediction.columns_of(gene) if gene and prediction.has_gene(gene) else []
