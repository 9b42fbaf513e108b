"""Background decoding of genes: the shown gene first, then likely next genes, then the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from psygnal import Signal

from ...inference.prediction import Prediction
from ..session.prediction_overlay import PredictionOverlay
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

BATCH_SECONDS = 0.1  # of decoding between two results
MIN_BATCH_VALUES = 1024  # values to begin with
REDRAW_SECONDS = 0.5  # between two drawings of an unfinished gene; drawing delays decoding
MAX_GENES_PER_BATCH = 8  # after the likely genes


class GeneDecodeJob:
    """Decodes the missing genes of all predictions, the shown gene first.

    Attributes
    ----------
    finished : Signal
        All genes of all predictions are decoded.
    """

    finished = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.paused = False  # while tiles are predicted only the shown gene is decoded
        self._runner = JobRunner("genes")
        self._batch_values = MIN_BATCH_VALUES
        self._all_decoded = False  # since the last change of the overlays
        connections.connect(self._on_gene_changed, session.gene_changed, session.pinned_changed)
        connections.connect(self.restart, session.overlays_changed)

    @property
    def busy(self) -> bool:
        """Whether genes are being decoded."""
        return self._runner.busy

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._runner.close()

    def set_paused(self, paused: bool) -> None:
        """Decode only the shown gene while paused."""
        if paused != self.paused:
            self.paused = paused
            self.restart()

    def restart(self) -> None:
        """Start again with the current gene; decoded values stay."""
        self._all_decoded = False
        interrupted = self._runner.busy
        self._runner.cancel()
        if any(o.prediction.predicted_mask.any() for o in self.session.overlays):
            self._runner.start(
                partial(self._decode_genes, interrupted), self._on_decoded, self._on_job_end
            )

    def _on_gene_changed(self) -> None:
        if not self._all_decoded:
            self.restart()

    def _decode_genes(
        self, interrupted: bool
    ) -> Iterator[tuple[PredictionOverlay, list[int]] | None]:
        last_redraw = time.perf_counter()
        # A cancelled job may still decode the current gene without a report. So every overlay
        # that lacked it is reported once it is decoded, by whichever job.
        incomplete = [
            o for o in self._overlays_with_gene() if interrupted or not self._is_decoded(o)
        ]
        while True:
            task = next(self._decode_queue(), None)
            for overlay in [o for o in incomplete if self._is_decoded(o)]:
                incomplete.remove(overlay)
                yield overlay, self._gene_columns(overlay)
            if task is None:
                return
            overlay, prediction, columns = task
            rows = prediction.find_undecoded_rows(columns)[
                : max(64, self._batch_values // len(columns))
            ]
            start = time.perf_counter()
            values = overlay.decode(prediction.tokens[rows], columns)
            now = time.perf_counter()
            ideal = values.size * BATCH_SECONDS / max(now - start, 1e-6)
            self._batch_values = int(np.clip(ideal, MIN_BATCH_VALUES, 32 * MIN_BATCH_VALUES))
            # Set here and not in the GUI thread: the next turn looks for missing values again.
            prediction.set_gene_values(rows, values, columns)
            if overlay in incomplete and now - last_redraw > REDRAW_SECONDS:
                last_redraw = now
                yield overlay, columns
            else:
                yield None

    def _overlays_with_gene(self) -> list[PredictionOverlay]:
        session = self.session
        return [o for o in session.overlays if o.prediction.has_gene(session.gene)]

    def _gene_columns(self, overlay: PredictionOverlay) -> list[int]:
        return overlay.prediction.columns_of(self.session.gene or "")

    def _is_decoded(self, overlay: PredictionOverlay) -> bool:
        """Whether the shown gene is decoded in the exact and in the rough map."""
        maps = (overlay.prediction, overlay.rough)
        columns = self._gene_columns(overlay)
        return not any(p is not None and len(p.find_undecoded_rows(columns)) for p in maps)

    def _decode_queue(self) -> Iterator[tuple[PredictionOverlay, Prediction, list[int]]]:
        """Yield what to decode next: an overlay, its exact or rough prediction, columns."""
        overlays = self._overlays_with_gene()
        for gene in self._priority_genes():
            for overlay in overlays:
                for prediction in (overlay.prediction, overlay.rough):
                    if prediction is not None and prediction.has_gene(gene):
                        missing = [
                            column
                            for column in prediction.columns_of(gene)
                            if len(prediction.find_undecoded_rows([column]))
                        ]
                        if missing:
                            yield overlay, prediction, missing
        if self.paused:
            return
        for overlay in overlays:
            incomplete = overlay.prediction.find_incomplete_columns()
            if len(incomplete):
                yield overlay, overlay.prediction, incomplete[:MAX_GENES_PER_BATCH].tolist()

    def _priority_genes(self) -> list[str]:
        """The shown gene; without a running prediction also its neighbours and the pinned genes."""
        session, panel = self.session, self.session.gene_panel
        if panel is None or session.gene is None:
            return []
        if self.paused:
            return [session.gene]
        symbols = panel.symbols
        row = symbols.index(session.gene)
        neighbours = [symbols[(row + step) % len(symbols)] for step in (1, -1)]
        return list(dict.fromkeys([session.gene, *neighbours, *session.pinned]))

    def _on_decoded(self, decoded: tuple[PredictionOverlay, list[int]] | None) -> None:
        if decoded is None:
            return
        overlay, columns = decoded
        session, prediction = self.session, overlay.prediction
        if overlay not in session.overlays or not prediction.has_gene(session.gene):
            return
        if set(prediction.columns_of(session.gene or "")) & set(columns):
            session.overlay_updated.emit(overlay)

    def _on_job_end(self, failure: JobFailure | None) -> None:
        self._all_decoded = failure is None and not self.paused
        if failure is not None:
            self.session.message.show(failure.message, warning=True)
        elif self._all_decoded:
            self.finished.emit()
