"""The background job of the gene lens: cached tiles first, then missing ones in the circle."""

from __future__ import annotations

import time
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

    from ...inference.gene_set_score import GeneSetScore
    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint


@dataclass(frozen=True, eq=False)
class LensContext:
    """The inputs of a lens; values of one context are not valid in another."""

    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None
    tissue: BaseGeometry | None
    mpp: float
    dense: bool
    tissue_only: bool
    scores: tuple[GeneSetScore, ...] = ()

    @classmethod
    def from_session(cls, session: ViewerSession) -> LensContext | None:
        """Return the context of a session; None if something is missing."""
        slide, checkpoint, panel = session.slide, session.checkpoint, session.model_gene_panel
        if slide is None or checkpoint is None or panel is None:
            return None
        if slide.pixel_size is None or slide not in session.slides:
            return None
        settings, mpp = session.settings, slide.mpp
        grid = settings.dense_grid, settings.tissue_only
        context = cls(
            slide, checkpoint, session.zero_shot, slide.tissue, mpp, *grid, session.scores
        )
        known = session.gene in panel or context.find_score(session.gene or "") is not None
        return context if known else None

    def is_same(self, other: LensContext | None) -> bool:
        """Return whether values of the other context are valid in this one."""
        return other is not None and (
            self.slide is other.slide
            and self.checkpoint is other.checkpoint
            and self.zero_shot is other.zero_shot
            and self.tissue is other.tissue
            and (self.mpp, self.dense, self.tissue_only)
            == (other.mpp, other.dense, other.tissue_only)
            and self.scores == other.scores
        )

    def make_grid(self) -> TileGridCache | None:
        """Return the grid of the slide; None until the tissue is detected."""
        if self.tissue is None:
            return None
        checkpoint, slide = self.checkpoint, self.slide.slide
        pitch_um = checkpoint.patch.um if self.dense else checkpoint.spot_pitch_um
        size = slide.width, slide.height
        return TileGridCache(size, pitch_um / self.mpp, pitch_um, self.tissue, self.tissue_only)

    def find_score(self, gene: str) -> GeneSetScore | None:
        """Return the gene set score of that symbol."""
        return next((s for s in self.scores if s.symbol == gene), None)

    def gene_columns(self, gene: str) -> list[int]:
        """Return the columns of a gene or score: those of the panel, then the zero-shot genes."""
        panel, score = self.checkpoint.panel, self.find_score(gene)
        if score is not None:
            return score.columns(panel)
        if self._is_zero_shot(gene) and self.zero_shot is not None:
            return [len(panel) + self.zero_shot.symbols.index(gene)]
        return [panel.row(gene)]

    def combine(self, gene: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values (N,) of a gene or score from those of its columns (N, K)."""
        score = self.find_score(gene)
        return values[:, 0] if score is None else score.combine(values)

    def kind(self, gene: str) -> str:
        """Return the kind of a gene's values, for names and legends."""
        return "predicted zero-shot" if self._is_zero_shot(gene) else "predicted"

    def units(self, gene: str) -> str:
        """Return the units of a gene, with the expected accuracy of a zero-shot gene."""
        if (score := self.find_score(gene)) is not None:
            return score.formula
        if self.zero_shot is None or not self._is_zero_shot(gene):
            return self.checkpoint.label_scale.name
        record = build_zero_shot_record(self.checkpoint, self.zero_shot)
        return f"{record['units']}\n{record['expectation']}"

    def _is_zero_shot(self, gene: str) -> bool:
        return self.zero_shot is not None and gene in self.zero_shot.symbols


LOOKUP_TILES = 1024  # looked up at once
DECODE_TILES = 64  # decoded at once; a network that samples takes milliseconds a tile
DRAW_SECONDS = 0.2  # between two drawings of what is decoded


@dataclass(frozen=True)
class LensTask:
    """A gene to predict in a context; without grid and raster until the tissue is detected."""

    context: LensContext
    gene: str
    grid: TileGridCache | None
    raster: GeneRaster | None


class LensJob:
    """Fills the raster of a gene in a thread, one job at a time.

    Attributes
    ----------
    circle : LensCircle or None
        The current circle; determines the order of prediction.
    rest_circle : LensCircle or None
        The circle at which the lens last rested; its tiles are predicted.
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
        self.runner, self._lock = JobRunner("lens"), Lock()

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.runner.busy

    def start(self, task: LensTask) -> None:
        """Start, unless a job runs or there is nothing to do."""
        if not self.busy and self._has_work(task):
            self.runner.start(
                lambda: self._compute(task), lambda item: self._on_values(), self._on_end
            )

    def cancel(self) -> None:
        """Cancel the running job."""
        self.runner.cancel()

    def close(self) -> None:
        """Stop and wait for the thread."""
        self.runner.close()

    def _has_work(self, task: LensTask) -> bool:
        grid, raster, circle = task.grid, task.raster, self.rest_circle
        if grid is None or raster is None or grid.has_cells_to_look_up(raster):
            return True
        if circle is None or self._jobs.busy:  # one expensive job at a time
            return False
        return len(grid.cells_to_predict(raster, circle)) > 0

    def _compute(self, task: LensTask) -> Iterator[None]:
        with self._lock:  # the previous job may still compute its last batch
            context, grid, raster = task.context, task.grid, task.raster
            predictor = self._session.predictors.get(context.slide, context.checkpoint)
            yield  # the tissue is detected now
            if grid is None or raster is None:
                return
            grid.compute_tissue_mask()
            columns = context.gene_columns(task.gene)
            while (circle := self.rest_circle) is not None:
                cells = grid.cells_to_look_up(raster, circle, LOOKUP_TILES)
                if len(cells):
                    yield from self._decode_cached(task, predictor, grid, raster, cells, columns)
                    continue
                missing = grid.cells_to_predict(raster, circle)
                if not len(missing) or self._jobs.busy:
                    return
                yield from self.predict_cells(task, predictor, grid, raster, missing, columns)

    def _decode_cached(
        self,
        task: LensTask,
        predictor: Predictor,
        grid: TileGridCache,
        raster: GeneRaster,
        cells: CellIndices,
        columns: list[int],
    ) -> Iterator[None]:
        """Decode the cells that are cached, in their order, until the lens has moved."""
        circle, context, since = self.rest_circle, task.context, time.monotonic()
        rows, tokens = predictor.get_cached_tokens(grid.make_target(cells))
        order, n_done = np.argsort(rows), len(cells)
        for start in range(0, len(rows), DECODE_TILES):
            chosen = order[start : start + DECODE_TILES]
            values = predictor.decode(tokens[chosen], columns, context.zero_shot)
            raster.set_values(cells[rows[chosen]], context.combine(task.gene, values))
            if time.monotonic() - since > DRAW_SECONDS:
                yield
                since = time.monotonic()
                if self.rest_circle != circle:
                    n_done = int(rows[chosen[-1]]) + 1
                    break
        raster.mark_looked_up(cells[:n_done])
        yield

    def predict_cells(
        self,
        task: LensTask,
        predictor: Predictor,
        grid: TileGridCache,
        raster: GeneRaster,
        cells: CellIndices,
        columns: list[int],
    ) -> Iterator[None]:
        """Predict cells, nearest to the lens first, until most of them are outside it."""
        remaining = np.ones(len(cells), bool)
        context = task.context
        updates = predictor.stream(
            grid.make_target(cells), self._make_order(), columns, context.zero_shot
        )
        with closing(updates):  # type: ignore[type-var]
            for update in updates:
                if len(update.rows):
                    values = context.combine(task.gene, update.values)
                    raster.set_values(cells[update.rows], values)
                raster.mark_attempted(cells[update.failed_rows])
                remaining[update.rows] = remaining[update.failed_rows] = False
                yield
                if self._jobs.busy or self._is_mostly_outside(cells[remaining], grid.pitch):
                    return
        raster.mark_attempted(cells)

    def _make_order(self) -> Callable[[NDArray[np.float64]], NDArray[np.int64] | None]:
        """Return an ordering function: positions (N, 2) to their order by distance from the lens.

        It returns None if the lens has not moved since the last call.
        """
        last: LensCircle | None = None

        def order_by_distance(xy: NDArray[np.float64]) -> NDArray[np.int64] | None:
            nonlocal last
            circle = self.circle
            if circle is None or circle == last:
                return None
            last = circle
            return np.argsort(circle.distances_to(xy))

        return order_by_distance

    def _is_mostly_outside(self, cells: CellIndices, pitch: float) -> bool:
        """Whether most of the remaining cells are outside the lens."""
        circle = self.rest_circle
        if circle is None or not len(cells):
            return circle is None
        inside = circle.distances_to((cells + 0.5) * pitch) <= circle.radius + pitch
        return bool(inside.mean() < 0.5)
