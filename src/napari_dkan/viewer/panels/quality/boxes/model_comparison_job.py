"""Predict the same tiles or spots with a second checkpoint, in a worker thread."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....layers.overlay_lookup import decode_all_genes
from ....layers.prediction_layers import GridOverlay
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession
from ....widgets.gl_compat import import_torch
from ...predict.model_box import is_trained_on

if TYPE_CHECKING:
    from .....inference.prediction import Prediction
    from .....inference.predictor import Predictor
    from .....inference.target import Target
    from .....model import Checkpoint
    from .....quality.comparison import Comparison
    from .....quality.model_comparison import ModelComparison


@dataclass(frozen=True)
class ModelComparisonProgress:
    """What is being done, for the user; total is 0 where it is unknown."""

    description: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class ModelComparisonResult:
    """Two checkpoints on one slide.

    Attributes
    ----------
    table_comparison : ModelComparison
        At the measured spots if there are any, else at the tiles.
    map_comparison : ModelComparison
        At the tiles of a map if there is one, else the same as `table_comparison`.
    slide : ViewerSlide
    target : Target
        Positions of `map_comparison`.
    comparison : Comparison or None
        Of the first checkpoint, where spots are measured.
    label_scale_name : str
    titles_trained_on_slide : tuple of str
        Titles of the checkpoints that were trained on this slide.
    """

    table_comparison: ModelComparison
    map_comparison: ModelComparison
    slide: ViewerSlide
    target: Target
    comparison: Comparison | None
    label_scale_name: str
    titles_trained_on_slide: tuple[str, ...] = ()


def compare_checkpoints(
    session: ViewerSession,
    slide: ViewerSlide,
    checkpoint: Checkpoint,
    path: Path,
    comparison: Comparison | None,
    tile_overlay: GridOverlay | None,
) -> Iterator[ModelComparisonProgress | ModelComparisonResult]:
    """Predict with the checkpoint at ``path`` at the positions that the first one has predicted.

    Raises
    ------
    DkanError
    """
    import_torch()
    from .....inference.device import reserve_cpu_core
    from .....inference.predictor import Predictor
    from .....model import load_checkpoint
    from .....quality.model_comparison import compare_models

    yield ModelComparisonProgress(f"Loading {path.name}")
    other = load_checkpoint(path)
    reserve_cpu_core()
    settings = session.settings
    options = settings.device, settings.encoder_weights, settings.store_tiles
    predictor = Predictor(
        slide.slide, other, slide.mpp, session.predictors.get_tissue(slide), *options
    )
    at_spots = on_map = None
    if comparison is not None:
        second = yield from _predict_target(predictor, comparison.prediction, slide, "spots")
        at_spots, target = compare_models(comparison.prediction, second, comparison), second.target
    if tile_overlay is not None:
        first = decode_all_genes(tile_overlay)
        second = yield from _predict_target(predictor, first, slide, "tiles")
        on_map, target = compare_models(first, second), first.target
    for_table = at_spots or on_map
    if for_table is not None:
        titles = zip(for_table.titles, (checkpoint, other), strict=True)
        for_map = on_map or for_table
        yield ModelComparisonResult(
            for_table,
            for_map,
            slide,
            target.take(for_map.spot_rows),
            comparison,
            checkpoint.label_scale.name,
            tuple(title for title, c in titles if is_trained_on(c, slide.slide)),
        )


def _predict_target(
    predictor: Predictor, first: Prediction, slide: ViewerSlide, what: str
) -> Generator[ModelComparisonProgress, None, Prediction]:
    """Predict with the second checkpoint at the positions of the first one's prediction."""
    from .....inference.predict import create_empty_prediction

    assert slide.pixel_size is not None
    target = first.target
    prediction, _ = create_empty_prediction(predictor, target, slide.pixel_size.origin)
    for update in predictor.stream(target):
        prediction.apply_update(replace(update, gene_columns=None))
        done = int(prediction.predicted_mask.sum())
        yield ModelComparisonProgress(f"Predicting {len(target):,} {what}", done, len(target))
    return prediction
