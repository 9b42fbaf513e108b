"""What the gene lens computes: what was predicted before, then what is missing under it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..inference.engine import Predictor
from .lane import Failure, Lane
from .lens_circle import Circle
from .lens_field import Cells, Field, Sheet
from .lens_scene import Scene
from .maps import Maps
from .session import Session

PART = 1024  # tiles looked up and decoded at a time


@dataclass(frozen=True)
class Work:
    """A gene to fill over a scene; field and sheet are None until the tissue is found."""

    scene: Scene
    gene: str
    field: Field | None
    sheet: Sheet | None


class Fill:
    """Fills the sheet of a gene in a thread, never two at a time.

    place : where the lens is. rests : where it last came to rest; the job follows both.
    """

    def __init__(
        self,
        session: Session,
        maps: Maps,
        on_values: Callable[[], None],
        on_end: Callable[[Failure | None], None],
    ) -> None:
        self.place: Circle | None = None
        self.rests: Circle | None = None
        self._session, self._maps = session, maps
        self._on_values, self._on_end = on_values, on_end
        self._lane, self._alone = Lane("lens"), Lock()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def start(self, work: Work) -> None:
        """Begin, unless it runs or there is nothing to do."""
        if not self.busy and self._lacking(work):
            self._lane.start(lambda: self._job(work), lambda item: self._on_values(), self._on_end)

    def cancel(self) -> None:
        self._lane.cancel()

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def _lacking(self, work: Work) -> bool:
        field, sheet, rests = work.field, work.sheet, self.rests
        if field is None or sheet is None or field.any_unasked(sheet):
            return True
        if rests is None or self._maps.busy:  # one heavy job at a time
            return False
        return len(field.missing(sheet, rests)) > 0

    def _job(self, work: Work) -> Iterator[None]:
        with self._alone:  # the job before may still be at its last batch
            scene, field, sheet = work.scene, work.field, work.sheet
            predictor = self._session.predictor(scene.slide, scene.checkpoint)  # finds the tissue
            yield
            if field is None or sheet is None:
                return
            field.find_tissue()
            column = scene.column(work.gene)
            while (circle := self.rests) is not None:
                unasked = field.unasked(sheet, circle, PART)
                if len(unasked):
                    rows, tokens = predictor.tokens_of(field.target(unasked))
                    if len(rows):
                        values = predictor.decode(tokens, [column], scene.zero_shot)
                        sheet.put(unasked[rows], values[:, 0])
                    sheet.mark_asked(unasked)
                    yield
                    continue
                missing = field.missing(sheet, circle)
                if not len(missing) or self._maps.busy:
                    return
                yield from self._predict(work, predictor, field, sheet, missing, column)

    def _predict(
        self,
        work: Work,
        predictor: Predictor,
        field: Field,
        sheet: Sheet,
        cells: Cells,
        column: int,
    ) -> Iterator[None]:
        """Predict cells, in the order the lens wants them, as long as it wants them."""
        left = np.ones(len(cells), bool)
        zero_shot = work.scene.zero_shot
        updates = predictor.stream(field.target(cells), self._order(), [column], zero_shot)
        with closing(updates):  # type: ignore[type-var]
            for update in updates:
                if len(update.rows):
                    sheet.put(cells[update.rows], update.values[:, 0])
                sheet.mark_tried(cells[update.failed])
                left[update.rows] = left[update.failed] = False
                yield
                if self._maps.busy or self._elsewhere(cells[left], field.pitch):
                    return
        sheet.mark_tried(cells)

    def _order(self) -> Callable[[NDArray[np.float64]], NDArray[np.int64] | None]:
        """Places (N, 2) -> their order by the lens of now; None where it has not moved."""
        asked: Circle | None = None

        def by_lens(xy: NDArray[np.float64]) -> NDArray[np.int64] | None:
            nonlocal asked
            place = self.place
            if place is None or place == asked:
                return None
            asked = place
            return np.argsort(place.distance(xy))

        return by_lens

    def _elsewhere(self, cells: Cells, pitch: float) -> bool:
        """Whether most of what is left lies off the lens by now."""
        rests = self.rests
        if rests is None or not len(cells):
            return rests is None
        under = rests.distance((cells + 0.5) * pitch) <= rests.radius + pitch
        return bool(under.mean() < 0.5)
