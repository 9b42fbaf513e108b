"""The background job of the gene lens: cached tiles first, then the missing ones inside the circle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...inference.predict import build_zero_shot_record
from ...inference.predictor import Predictor
from ..jobs.prediction_jobs import PredictionJobs
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from ..worker import JobFailure, JobRunner
from .lens_grid import CellIndices, GeneRaster, LensCircle, TileGridCache

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint


@dataclass(frozen=True, eq=False)
class LensContext:
    """Slide, checkpoint and grid; over another one nothing holds that was known."""

    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None
    tissue: BaseGeometry | None
    mpp: float
    dense: bool
    tissue_only: bool

    @classmethod
    def from_session(cls, session: ViewerSession) -> LensContext | None:
        """The session's; None as long as something is missing."""
        slide, checkpoint, panel = session.slide, session.checkpoint, session.model_gene_panel
        if slide is None or checkpoint is None or panel is None:
            return None
        if slide.pixel_size is None or slide not in session.slides or session.gene not in panel:
            return None
        settings, mpp = session.settings, slide.mpp
        grid = settings.dense_grid, settings.tissue_only
        return cls(slide, checkpoint, session.zero_shot, slide.tissue, mpp, *grid)

    def is_same(self, other: LensContext | None) -> bool:
        return other is not None and all(
            mine is its or (isinstance(mine, float) and mine == its)
            for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    def make_grid(self) -> TileGridCache | None:
        """Its cells; None until the tissue is found."""
        if self.tissue is None:
            return None
        checkpoint, slide = self.checkpoint, self.slide.slide
        pitch_um = checkpoint.patch.um if self.dense else checkpoint.spot_pitch_um
        size = slide.width, slide.height
        return TileGridCache(size, pitch_um / self.mpp, pitch_um, self.tissue, self.tissue_only)

    def gene_column(self, gene: str) -> int:
        """Of the gene among the panel and the genes after it."""
        panel = self.checkpoint.panel
        if self._is_zero_shot(gene) and self.zero_shot is not None:
            return len(panel) + self.zero_shot.symbols.index(gene)
        return panel.row(gene)

    def kind(self, gene: str) -> str:
        """How its values come about, for names and legends."""
        return "predicted zero-shot" if self._is_zero_shot(gene) else "predicted"

    def units(self, gene: str) -> str:
        """What its values are measured in, and for a zero-shot gene what to expect of it."""
        if self.zero_shot is None or not self._is_zero_shot(gene):
            return self.checkpoint.label_scale.name
        record = build_zero_shot_record(self.checkpoint, self.zero_shot)
        return f"{record['units']}\n{record['expectation']}"

    def _is_zero_shot(self, gene: str) -> bool:
        return self.zero_shot is not None and gene in self.zero_shot.symbols


LOOKUP_TILES = 1024  # tiles looked up and decoded at a time


@dataclass(frozen=True)
class LensTask:
    """A gene to fill over a scene; field and sheet are None until the tissue is found."""

    context: LensContext
    gene: str
    grid: TileGridCache | None
    raster: GeneRaster | None


class LensJob:
    """Fills the sheet of a gene in a thread, never two at a time.

    place : where the lens is. rests : where it last came to rest; the job follows both.
    """

    def __init__(
        self,
        session: ViewerSession,
        jobs: PredictionJobs,
        on_values: Callable[[], None],
        on_end: Callable[[JobFailure | None], None],
    ) -> None:
        self.circle: LensCircle | None = None
        self.rest_circle: LensCircle | None = None
        self._session, self._jobs = session, jobs
        self._on_values, self._on_end = on_values, on_end
        self._runner, self._lock = JobRunner("lens"), Lock()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def start(self, task: LensTask) -> None:
        """Begin, unless it runs or there is nothing to do."""
        if not self.busy and self._has_work(task):
            self._runner.start(
                lambda: self._compute(task), lambda item: self._on_values(), self._on_end
            )

    def cancel(self) -> None:
        self._runner.cancel()

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

    def _has_work(self, task: LensTask) -> bool:
        field, sheet, rests = task.grid, task.raster, self.rest_circle
        if field is None or sheet is None or field.has_cells_to_look_up(sheet):
            return True
        if rests is None or self._jobs.busy:  # one heavy job at a time
            return False
        return len(field.cells_to_predict(sheet, rests)) > 0

    def _compute(self, task: LensTask) -> Iterator[None]:
        with self._lock:  # the job before may still be at its last batch
            scene, field, sheet = task.context, task.grid, task.raster
            predictor = self._session.predictors.get(
                scene.slide, scene.checkpoint
            )  # finds the tissue
            yield
            if field is None or sheet is None:
                return
            field.compute_tissue_mask()
            column = scene.gene_column(task.gene)
            while (circle := self.rest_circle) is not None:
                unasked = field.cells_to_look_up(sheet, circle, LOOKUP_TILES)
                if len(unasked):
                    rows, tokens = predictor.get_cached_tokens(field.make_target(unasked))
                    if len(rows):
                        values = predictor.decode(tokens, [column], scene.zero_shot)
                        sheet.set_values(unasked[rows], values[:, 0])
                    sheet.mark_looked_up(unasked)
                    yield
                    continue
                missing = field.cells_to_predict(sheet, circle)
                if not len(missing) or self._jobs.busy:
                    return
                yield from self._predict_cells(task, predictor, field, sheet, missing, column)

    def _predict_cells(
        self,
        task: LensTask,
        predictor: Predictor,
        grid: TileGridCache,
        raster: GeneRaster,
        cells: CellIndices,
        column: int,
    ) -> Iterator[None]:
        """Predict cells, in the order the lens wants them, as long as it wants them."""
        left = np.ones(len(cells), bool)
        zero_shot = task.context.zero_shot
        updates = predictor.stream(grid.make_target(cells), self._make_order(), [column], zero_shot)
        with closing(updates):  # type: ignore[type-var]
            for update in updates:
                if len(update.rows):
                    raster.set_values(cells[update.rows], update.values[:, 0])
                raster.mark_attempted(cells[update.failed_rows])
                left[update.rows] = left[update.failed_rows] = False
                yield
                if self._jobs.busy or self._is_mostly_outside(cells[left], grid.pitch):
                    return
        raster.mark_attempted(cells)

    def _make_order(self) -> Callable[[NDArray[np.float64]], NDArray[np.int64] | None]:
        """Places (N, 2) -> their order by the lens of now; None where it has not moved."""
        asked: LensCircle | None = None

        def by_lens(xy: NDArray[np.float64]) -> NDArray[np.int64] | None:
            nonlocal asked
            place = self.circle
            if place is None or place == asked:
                return None
            asked = place
            return np.argsort(place.distances_to(xy))

        return by_lens

    def _is_mostly_outside(self, cells: CellIndices, pitch: float) -> bool:
        """Whether most of what is left lies off the lens by now."""
        rests = self.rest_circle
        if rests is None or not len(cells):
            return rests is None
        under = rests.distances_to((cells + 0.5) * pitch) <= rests.radius + pitch
        return bool(under.mean() < 0.5)
