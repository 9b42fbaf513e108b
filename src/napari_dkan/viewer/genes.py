"""Decoding: the gene asked for at once, then those likely next, then the rest of the panel.

Everything comes from fused tokens that are there already; the slide is not read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from ..inference.prediction import Prediction
from .lane import Failure, Lane
from .links import Links
from .overlay import Overlay
from .session import Session

PART_SECONDS = 0.1  # of decoding between two results
PART = 1024  # values to begin with
TELL_SECONDS = 0.5  # until an unfinished gene is drawn: drawing takes from decoding
MOST_GENES = 8  # decoded together, once the likely ones are there


class Genes:
    """Decodes what the overlays of a session lack, the shown gene before all others."""

    def __init__(self, session: Session, links: Links) -> None:
        self.session = session
        self.paused = False  # while tiles are predicted only the shown gene is decoded
        self._lane = Lane("genes")
        self._part = PART
        self._finished = False  # nothing is lacking since the last change of the overlays
        links.join(self._gene_changed, session.gene_changed, session.pinned_changed)
        links.join(self.start, session.overlays_changed)

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def pause(self, paused: bool) -> None:
        if paused != self.paused:
            self.paused = paused
            self.start()

    def start(self) -> None:
        """Begin again with the gene of now; what is decoded stays."""
        self._finished = False
        interrupted = self._lane.busy
        self._lane.cancel()
        if any(o.prediction.done.any() for o in self.session.overlays):
            self._lane.start(partial(self._job, interrupted), self._receive, self._end)

    def _gene_changed(self) -> None:
        if not self._finished:
            self.start()

    def _job(self, interrupted: bool) -> Iterator[tuple[Overlay, list[int]] | None]:
        told = time.perf_counter()
        # A job that was cancelled may still decode the gene of now and nobody hears of it, so
        # every overlay that lacked it is told of once it is there, whoever decoded it.
        waiting = [o for o in self._showing() if interrupted or not self._ready(o)]
        while True:
            found = next(self._lacking(), None)
            for overlay in [o for o in waiting if self._ready(o)]:
                waiting.remove(overlay)
                yield overlay, [self._column(overlay)]
            if found is None:
                return
            overlay, prediction, columns = found
            rows = prediction.undecoded(columns[0])[: max(64, self._part // len(columns))]
            start = time.perf_counter()
            values = overlay.decode(prediction.tokens[rows], columns)
            now = time.perf_counter()
            ideal = values.size * PART_SECONDS / max(now - start, 1e-6)
            self._part = int(np.clip(ideal, PART, 32 * PART))
            # taken here and not in the GUI thread: the next turn asks again what is lacking
            prediction.fill_genes(rows, values, columns)
            if overlay in waiting and now - told > TELL_SECONDS:
                told = now
                yield overlay, columns
            else:
                yield None

    def _showing(self) -> list[Overlay]:
        session = self.session
        return [o for o in session.overlays if session.gene in o.prediction.panel]

    def _column(self, overlay: Overlay) -> int:
        return overlay.prediction.panel.row(self.session.gene or "")

    def _ready(self, overlay: Overlay) -> bool:
        """Whether the shown gene is decoded, in the exact map and in the rough one."""
        both = (overlay.prediction, overlay.rough)
        column = self._column(overlay)
        return not any(p is not None and len(p.undecoded(column)) for p in both)

    def _lacking(self) -> Iterator[tuple[Overlay, Prediction, list[int]]]:
        """What to decode next: an overlay, its exact or rough prediction, columns."""
        overlays = self._showing()
        for gene in self._likely():
            for overlay in overlays:
                for prediction in (overlay.prediction, overlay.rough):
                    if prediction is not None and gene in prediction.panel:
                        column = prediction.panel.row(gene)
                        if len(prediction.undecoded(column)):
                            yield overlay, prediction, [column]
        if self.paused:
            return
        for overlay in overlays:
            lacks = overlay.prediction.lacking()
            if len(lacks):
                yield overlay, overlay.prediction, lacks[:MOST_GENES].tolist()

    def _likely(self) -> list[str]:
        """The shown gene; when nothing else runs also those one key or one click away."""
        session, panel = self.session, self.session.panel
        if panel is None or session.gene is None:
            return []
        if self.paused:
            return [session.gene]
        symbols = panel.symbols
        at = symbols.index(session.gene)
        beside = [symbols[(at + step) % len(symbols)] for step in (1, -1)]
        return list(dict.fromkeys([session.gene, *beside, *session.pinned]))

    def _receive(self, decoded: tuple[Overlay, list[int]] | None) -> None:
        if decoded is None:
            return
        overlay, columns = decoded
        session, panel = self.session, overlay.prediction.panel
        shown = session.gene is not None and session.gene in panel
        if shown and overlay in session.overlays and panel.row(session.gene or "") in columns:
            session.overlay_grew.emit(overlay)

    def _end(self, failure: Failure | None) -> None:
        self._finished = failure is None and not self.paused
        if failure is not None:
            self.session.say(failure.sentence, alarming=True)
