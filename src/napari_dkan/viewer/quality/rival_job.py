"""The same places under two checkpoints: what runs in a thread."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..model_box import trained_on
from ..overlay import GridOverlay
from ..session import OpenSlide, Session
from ..torch_beside_gl import import_torch
from .tile_maps import decoded

if TYPE_CHECKING:
    from ...inference.engine import Predictor
    from ...inference.prediction import Prediction
    from ...inference.target import Target
    from ...model import Checkpoint
    from ...quality.compare import Comparison
    from ...quality.rivals import Rivals


@dataclass(frozen=True)
class Step:
    """What is being done, for people; total 0 where nobody knows how far it is."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Match:
    """Two checkpoints on one slide.

    figures : at the measured spots where there are any, else at the tiles. on_map : at the tiles
    of a map where there is one, else the same as figures. target : the places of on_map.
    comparison : of the first checkpoint, where spots are measured. scale : what the values are.
    trained : titles of those that were trained on this very slide.
    """

    figures: Rivals
    on_map: Rivals
    slide: OpenSlide
    target: Target
    comparison: Comparison | None
    scale: str
    trained: tuple[str, ...] = ()


def matching(
    session: Session,
    slide: OpenSlide,
    checkpoint: Checkpoint,
    path: Path,
    comparison: Comparison | None,
    tiles: GridOverlay | None,
) -> Iterator[Step | Match]:
    """Predict with the checkpoint at ``path`` where the first one already has. Raises DkanError."""
    import_torch()
    from ...inference.device import leave_a_core
    from ...inference.engine import Predictor
    from ...model import load_checkpoint
    from ...quality.rivals import rivals

    yield Step(f"Loading {path.name}")
    other = load_checkpoint(path)
    leave_a_core()
    settings = session.settings
    options = settings.device, settings.encoder_weights, settings.store
    predictor = Predictor(slide.slide, other, slide.mpp, session.tissue_of(slide), *options)
    at_spots = on_map = None
    if comparison is not None:
        second = yield from _predicted(predictor, comparison.prediction, slide, "spots")
        at_spots, target = rivals(comparison.prediction, second, comparison), second.target
    if tiles is not None:
        first = decoded(tiles)
        second = yield from _predicted(predictor, first, slide, "tiles")
        on_map, target = rivals(first, second), first.target
    figures = at_spots or on_map
    if figures is not None:
        scale = checkpoint.label_scale.name
        both = zip(figures.titles, (checkpoint, other), strict=True)
        trained = tuple(title for title, c in both if trained_on(c, slide.slide))
        shown = on_map or figures
        target = target.take(shown.rows)
        yield Match(figures, shown, slide, target, comparison, scale, trained)


def _predicted(
    predictor: Predictor, first: Prediction, slide: OpenSlide, what: str
) -> Generator[Step, None, Prediction]:
    """The second checkpoint's prediction at the places of the first one's; returns it."""
    from ...inference.predict import empty_prediction

    assert slide.pixel_size is not None
    target = first.target
    prediction, _ = empty_prediction(predictor, target, slide.pixel_size.origin)
    for update in predictor.stream(target):
        prediction.fill(replace(update, genes=None))
        done = int(prediction.done.sum())
        yield Step(f"Predicting {len(target):,} {what}", done, len(target))
    return prediction
