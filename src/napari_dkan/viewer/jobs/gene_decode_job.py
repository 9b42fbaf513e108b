"""Background decoding of genes: the shown gene first, then likely next genes, then the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from ...inference.prediction import Prediction
from ..session.prediction_overlay import PredictionOverlay
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

BATCH_SECONDS = 0.1  # of decoding between two results
MIN_BATCH_VALUES = 1024  # values to begin with
REDRAW_SECONDS = 0.5  # until an unfinished gene is drawn: drawing takes from decoding
MAX_GENES_PER_BATCH = 8  # decoded together, once the likely ones are there


class GeneDecodeJob:
    """Decodes what the overlays of a session lack, the shown gene before all others."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.paused = False  # while tiles are predicted only the shown gene is decoded
        self._runner = JobRunner("genes")
        self._batch_values = MIN_BATCH_VALUES
        self._all_decoded = False  # nothing is lacking since the last change of the overlays
        connections.connect(self._on_gene_changed, session.gene_changed, session.pinned_changed)
        connections.connect(self.restart, session.overlays_changed)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

    def set_paused(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self.restart()

    def restart(self) -> None:
        """Begin again with the gene of now; what is decoded stays."""
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
        told = time.perf_counter()
        # A job that was cancelled may still decode the gene of now and nobody hears of it, so
        # every overlay that lacked it is told of once it is there, whoever decoded it.
        waiting = [o for o in self._overlays_with_gene() if interrupted or not self._is_decoded(o)]
        while True:
            found = next(self._decode_queue(), None)
            for overlay in [o for o in waiting if self._is_decoded(o)]:
                waiting.remove(overlay)
                yield overlay, [self._gene_column(overlay)]
            if found is None:
                return
            overlay, prediction, columns = found
            rows = prediction.find_undecoded_rows(columns[0])[
                : max(64, self._batch_values // len(columns))
            ]
            start = time.perf_counter()
            values = overlay.decode(prediction.tokens[rows], columns)
            now = time.perf_counter()
            ideal = values.size * BATCH_SECONDS / max(now - start, 1e-6)
            self._batch_values = int(np.clip(ideal, MIN_BATCH_VALUES, 32 * MIN_BATCH_VALUES))
            # taken here and not in the GUI thread: the next turn asks again what is lacking
            prediction.set_gene_values(rows, values, columns)
            if overlay in waiting and now - told > REDRAW_SECONDS:
                told = now
                yield overlay, columns
            else:
                yield None

    def _overlays_with_gene(self) -> list[PredictionOverlay]:
        session = self.session
        return [o for o in session.overlays if session.gene in o.prediction.panel]

    def _gene_column(self, overlay: PredictionOverlay) -> int:
        return overlay.prediction.panel.row(self.session.gene or "")

    def _is_decoded(self, overlay: PredictionOverlay) -> bool:
        """Whether the shown gene is decoded, in the exact map and in the rough one."""
        both = (overlay.prediction, overlay.rough)
        column = self._gene_column(overlay)
        return not any(p is not None and len(p.find_undecoded_rows(column)) for p in both)

    def _decode_queue(self) -> Iterator[tuple[PredictionOverlay, Prediction, list[int]]]:
        """What to decode next: an overlay, its exact or rough prediction, columns."""
        overlays = self._overlays_with_gene()
        for gene in self._priority_genes():
            for overlay in overlays:
                for prediction in (overlay.prediction, overlay.rough):
                    if prediction is not None and gene in prediction.panel:
                        column = prediction.panel.row(gene)
                        if len(prediction.find_undecoded_rows(column)):
                            yield overlay, prediction, [column]
        if self.paused:
            return
        for overlay in overlays:
            lacks = overlay.prediction.find_incomplete_columns()
            if len(lacks):
                yield overlay, overlay.prediction, lacks[:MAX_GENES_PER_BATCH].tolist()

    def _priority_genes(self) -> list[str]:
        """The shown gene; when nothing else runs also those one key or one click away."""
        session, panel = self.session, self.session.gene_panel
        if panel is None or session.gene is None:
            return []
        if self.paused:
            return [session.gene]
        symbols = panel.symbols
        at = symbols.index(session.gene)
        beside = [symbols[(at + step) % len(symbols)] for step in (1, -1)]
        return list(dict.fromkeys([session.gene, *beside, *session.pinned]))

    def _on_decoded(self, decoded: tuple[PredictionOverlay, list[int]] | None) -> None:
        if decoded is None:
            return
        overlay, columns = decoded
        session, panel = self.session, overlay.prediction.panel
        shown = session.gene is not None and session.gene in panel
        if shown and overlay in session.overlays and panel.row(session.gene or "") in columns:
            session.overlay_updated.emit(overlay)

    def _on_job_end(self, failure: JobFailure | None) -> None:
        self._all_decoded = failure is None and not self.paused
        if failure is not None:
            self.session.message.show(failure.message, warning=True)
