"""Split spots into training, validation and test subsets.

The test subset is used once, at the end. The epoch is chosen by cross-validation within the training
subset (`HoldOutSplit.folds`); the final model is trained on all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import SpotsError
from .finetune_settings import FinetuneSettings, HoldOutUnit
from .spot_blocks import MIN_SPOTS, SpotRows, draw_blocks, separate_with_buffer, split_into_blocks
from .training_section import LabelMatrix, TrainingSection

N_FOLDS = 4
SINGLE_FOLD_MIN_SPOTS = 1000  # spots from which one fold tells enough


@dataclass(frozen=True)
class Subset:
    """Rows of each lesson (none of some), and their labels (len(rows), G)."""

    rows: tuple[SpotRows, ...]
    labels: tuple[LabelMatrix, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True)
class HoldOutSplit:
    """report : held out. fit : all that teaches. folds : (what teaches, what chooses) within it.

    between : spots of the ring, in neither.
    """

    test: Subset
    train: Subset
    folds: tuple[tuple[Subset, Subset], ...]
    n_buffer: int

    @property
    def n_validation(self) -> int:
        """Spots that choose the epoch, over all folds."""
        return sum(len(chosen) for _, chosen in self.folds)


def split_sections(
    lessons: Sequence[TrainingSection], settings: FinetuneSettings, reach: int
) -> HoldOutSplit:
    """reach : array steps that a label is averaged over.

    Raises SpotsError when there are too few spots, or sections, for the three parts.
    """
    outs = draw_held_out_rows([le.array_coordinates for le in lessons], settings)
    every = [np.arange(len(le)) for le in lessons]
    held = [
        separate_with_buffer(le.array_coordinates, rows, out, reach)
        for le, rows, out in zip(lessons, every, outs, strict=True)
    ]
    rests = [h.remaining if len(h.remaining) >= MIN_SPOTS else h.remaining[:0] for h in held]
    fit = _make_training_subset(lessons, rests)
    quarters = [_split_rows_into_folds(le, rest) for le, rest in zip(lessons, rests, strict=True)]
    folds = []
    for number in range(N_FOLDS):
        inner = [
            separate_with_buffer(le.array_coordinates, rest, parts[number], reach)
            for le, rest, parts in zip(lessons, rests, quarters, strict=True)
        ]
        taught, chosen = [i.remaining for i in inner], [i.held_out for i in inner]
        if min(sum(map(len, taught)), sum(map(len, chosen))) < MIN_SPOTS:
            continue
        among = [np.sort(np.concatenate([i.held_out, i.buffer])) for i in inner]
        folds.append((_make_training_subset(lessons, taught), _make_subset(lessons, chosen, among)))
    if not folds:
        named = ", ".join(le.name for le in lessons)
        raise SpotsError(
            f"{named}: {sum(map(len, lessons))} labelled spots are too few to teach, to choose the "
            f"epoch and to report on; {len(fit)} were left to learn from. Give more spots, or a "
            "smaller share held out."
        )
    return HoldOutSplit(
        _make_subset(lessons, outs, every),
        fit,
        tuple(folds[:1] if len(fit) > SINGLE_FOLD_MIN_SPOTS else folds),
        sum(len(h.buffer) for h in held),
    )


def draw_held_out_rows(arrays: Sequence[SpotRows], settings: FinetuneSettings) -> list[SpotRows]:
    """Rows of each section that are reported on; arrays : (N, 2) coordinates of its spots.

    Raises SpotsError when there are too few spots or sections.
    """
    every = [np.arange(len(array)) for array in arrays]
    if settings.hold_out is HoldOutUnit.blocks:
        return [
            draw_blocks(array, rows, settings.share, settings.seed)
            for array, rows in zip(arrays, every, strict=True)
        ]
    if len(arrays) < 2:
        raise SpotsError("Holding out whole sections takes at least two; hold out blocks instead.")
    count = min(max(1, round(settings.share * len(arrays))), len(arrays) - 1)
    drawn = set(np.random.default_rng(settings.seed).permutation(len(arrays))[:count].tolist())
    return [rows if i in drawn else rows[:0] for i, rows in enumerate(every)]


def _split_rows_into_folds(lesson: TrainingSection, rest: SpotRows) -> list[SpotRows]:
    """FOLDS contiguous parts of the spots that teach."""
    if not len(rest):
        return [rest] * N_FOLDS
    return [
        rest[part]
        for part in _merge_into_folds(
            split_into_blocks(lesson.array_coordinates[rest], len(rest) / N_FOLDS)
        )
    ]


def _merge_into_folds(found: Sequence[SpotRows]) -> list[SpotRows]:
    """The blocks joined, or empty ones added, to be FOLDS."""
    ends = np.linspace(0, len(found), N_FOLDS + 1).round().astype(int)
    return [
        np.sort(np.concatenate([np.zeros(0, np.int64), *found[a:b]])) for a, b in pairwise(ends)
    ]


def _make_training_subset(lessons: Sequence[TrainingSection], rows: Sequence[SpotRows]) -> Subset:
    """Labels that teach are averaged over spots that teach, and over no others."""
    return _make_subset(lessons, rows, rows)


def _make_subset(
    lessons: Sequence[TrainingSection], rows: Sequence[SpotRows], among: Sequence[SpotRows]
) -> Subset:
    labels = [le.smooth_labels(r, a) for le, r, a in zip(lessons, rows, among, strict=True)]
    return Subset(tuple(rows), tuple(labels))
