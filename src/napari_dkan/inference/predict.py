"""From a slide and a checkpoint to a Prediction: what scripts and the command line call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..expression.panel import Panel
from .engine import Predictor
from .job import PredictionUpdate
from .prediction import Prediction
from .provenance import build_provenance, build_zero_shot_record
from .target import Target

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide
    from .zero_shot import ZeroShotGenes


def find_tissue_region(slide: Slide, mpp: float | None) -> BaseGeometry:
    """Tissue of a slide as polygons in level-0 px; empty where none is found."""
    from ..slide.tissue import find_tissue

    return find_tissue(slide, mpp).polygons()


def create_empty_prediction(
    predictor: Predictor,
    target: Target,
    mpp_origin: str,
    genes: Sequence[str] | None = None,
    zero_shot: ZeroShotGenes | None = None,
) -> tuple[Prediction, list[int] | None]:
    """The Prediction that a job fills, and the panel rows it asks the network for.

    zero_shot : genes outside the panel; they follow it.

    Raises SpotsError when a gene is not in the panel.
    """
    panel = predictor.checkpoint.panel
    rows = None if genes is None else panel.rows(genes)
    if rows is not None:
        panel = Panel(tuple(panel.genes[r] for r in rows))
    record = build_provenance(predictor, target, mpp_origin)
    scale = predictor.checkpoint.label_scale
    new: tuple[str, ...] = ()
    if zero_shot is not None and zero_shot.genes:
        panel, new = Panel((*panel.genes, *zero_shot.genes)), zero_shot.symbols
        record["zero_shot"] = build_zero_shot_record(predictor.checkpoint, zero_shot)
    return Prediction.create_empty(target, panel, scale, record, new, predictor.token_dim), rows


def predict(
    predictor: Predictor,
    target: Target,
    mpp_origin: str = "given",
    genes: Sequence[str] | None = None,
    on_update: Callable[[PredictionUpdate], None] = lambda update: None,
    zero_shot: ZeroShotGenes | None = None,
) -> Prediction:
    """Run a job to its end. Spots where the slide is damaged stay NaN and are marked failed.

    Raises DkanError.
    """
    prediction, rows = create_empty_prediction(predictor, target, mpp_origin, genes, zero_shot)
    columns = rows
    if rows is not None and zero_shot is not None:
        count = len(predictor.checkpoint.panel)
        columns = [*rows, *range(count, count + len(zero_shot.genes))]
    for update in predictor.stream(target, genes=columns, zero_shot=zero_shot):
        prediction.apply_update(replace(update, gene_columns=None))  # all of its own columns, in their order
        on_update(update)
    return prediction
