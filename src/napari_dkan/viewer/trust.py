"""How far to trust what is shown: every predicted tile is judged, and the doubtful are hatched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray

from ..inference.prediction import Prediction
from .hatching import Hatching, hatching
from .links import Links
from .overlay import Overlay
from .session import Session

if TYPE_CHECKING:
    from ..export.anndata import Judged
    from ..export.saved import Judgement
    from ..model.reference import Reference


@dataclass
class _Judged:
    """What is known of one overlay: which rows are judged, and which of them are doubtful.

    size : spots when it was judged; clicked spots gather in one overlay that grows.
    """

    size: int
    judged: NDArray[np.bool_]
    unreliable: NDArray[np.bool_]
    marks: Hatching | None = None


class Trust:
    """Judges the overlays of a session as they grow, and hatches what should not be relied on."""

    def __init__(self, session: Session, links: Links) -> None:
        self._session = session
        self._known: dict[int, tuple[Overlay, _Judged]] = {}
        self._busy = False  # our own layers come and go
        links.join(self.refresh, session.overlays_changed, session.settings_changed)
        links.join(self._judge, session.overlay_grew)
        links.join(self._removed, session.viewer.layers.events.removed)

    def close(self) -> None:
        for key in list(self._known):
            self._forget(key)

    def unreliable(self, overlay: Overlay) -> tuple[int, int]:
        """How many of its predicted tiles are not to be relied on, and of how many."""
        known = self._known.get(id(overlay))
        if known is None:
            return 0, 0
        return int(known[1].unreliable.sum()), int(known[1].judged.sum())

    def refresh(self) -> None:
        """Follow the overlays that are there and the setting."""
        here = {id(o) for o in self._session.overlays}
        for key in [k for k in self._known if k not in here]:
            self._forget(key)
        for overlay in self._session.overlays:
            self._judge(overlay)

    def _judge(self, overlay: Overlay) -> None:
        if overlay.reference is None:
            return
        prediction = overlay.prediction
        size = len(prediction.target)
        kept = self._known.get(id(overlay))
        if kept is None or kept[1].size != size:
            self._forget(id(overlay))
            kept = (overlay, _Judged(size, np.zeros(size, bool), np.zeros(size, bool)))
            self._known[id(overlay)] = kept
        state = kept[1]
        new = np.flatnonzero(prediction.done & ~state.judged)
        if len(new):
            state.judged[new] = True
            state.unreliable[new] = judged(prediction, overlay.reference, new).unreliable
        if self._session.settings.hatch:
            self._mark(overlay, state, new if state.marks else np.arange(size))
        elif state.marks is not None:
            self._take_off(state)

    def _mark(self, overlay: Overlay, state: _Judged, rows: NDArray[np.int64]) -> None:
        rows = rows[state.unreliable[rows]]
        if not len(rows):
            return
        if state.marks is None:
            state.marks = hatching(overlay)
            self._put(overlay, state.marks.layer)
        state.marks.mark(rows)

    def _put(self, overlay: Overlay, layer: Layer) -> None:
        """Right above its map, shown and hidden with it; the person's selection stays."""
        layers = self._session.viewer.layers
        selected = set(layers.selection)
        self._session.put_beside(overlay.layer, layer)
        layers.insert(layers.index(overlay.layer) + 1, layer)
        layers.selection = selected
        layer.visible = overlay.layer.visible

        def follow(event: object = None) -> None:
            layer.visible = overlay.layer.visible

        overlay.layer.events.visible.connect(follow)

    def _take_off(self, state: _Judged) -> None:
        layers, marks = self._session.viewer.layers, state.marks
        state.marks = None
        if marks is not None and marks.layer in layers:
            self._busy = True
            layers.remove(marks.layer)
            self._busy = False

    def _forget(self, key: int) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._take_off(known[1])

    def _removed(self, event: object) -> None:
        """Deleting the hatching by hand means to do without it."""
        layer = getattr(event, "value", None)
        if not self._busy and any(s.marks and s.marks.layer is layer for _, s in self._all()):
            self._session.change(hatch=False)

    def _all(self) -> list[tuple[Overlay, _Judged]]:
        return list(self._known.values())


def judged(
    prediction: Prediction, reference: Reference | Judgement, rows: NDArray[np.int64] | slice
) -> Judged:
    """The reliability of some rows of a prediction, or what its file tells of them."""
    from ..export.saved import Judgement
    from ..quality.reliability import judge

    if isinstance(reference, Judgement):
        which = np.arange(len(reference.score))[rows]
        said = tuple(reference.said[row] for row in which)
        return Judgement(reference.score[which], reference.unreliable[which], said)
    return judge(reference, prediction.evidence[rows], prediction.tokens[rows])


def verdict(prediction: Prediction, reference: Reference | Judgement | None, row: int) -> str:
    """One spot's reliability in words: "reliability: poor (out of focus)"; "" where unknown."""
    from ..quality.reliability import word_of

    if reference is None:
        return ""
    found = judged(prediction, reference, slice(row, row + 1) if row >= 0 else slice(row, None))
    if not np.isfinite(found.score[0]):
        return ""
    reasons = found.reasons(0)
    return f"reliability: {word_of(float(found.score[0]))}" + (
        f" ({', '.join(reasons)})" if reasons else ""
    )
