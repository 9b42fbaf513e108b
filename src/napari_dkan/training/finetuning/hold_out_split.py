"""Split spots into training, validation and test subsets.

The test subset is used once, at the end. The epoch is chosen by cross-validation within the
training subset (`HoldOutSplit.folds`); the final model is trained on all of it.

Neighbouring spots are similar and labels are averaged over neighbours, so a random draw of spots
would leak. Subsets are contiguous blocks, separated by a buffer of spots that belongs to none. A
label is averaged over spots of its own subset or of the buffer, and training labels only over
training spots. No count that enters a label on one side enters a label on the other side, for any
reach of the averaging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...expression.array_geometry import is_hexagonal
from .finetune_settings import FinetuneSettings, HoldOutUnit
from .training_section import LabelMatrix, SpotRows, TrainingSection

N_FOLDS = 4
SINGLE_FOLD_MIN_SPOTS = 1000  # training spots above which one fold is enough
SPOTS_PER_BLOCK = 20  # approximate size of a block
MIN_SPOTS = 8  # smallest size of a subset

ArrayCoordinates = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """Rows of each section (possibly none), their labels (len(rows), G) and depth (len(rows),)."""

    rows: tuple[SpotRows, ...]
    labels: tuple[LabelMatrix, ...]
    depth: tuple[NDArray[np.float64], ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True)
class HoldOutSplit:
    """Subsets of the spots of all sections.

    Attributes
    ----------
    test
        Spots held out for the report.
    train
        All training spots.
    folds
        Training and validation subset of each fold, within the training spots.
    n_buffer
        Number of spots of the buffer around the test spots, which belong to no subset.
    """

    test: Subset
    train: Subset
    folds: tuple[tuple[Subset, Subset], ...]
    n_buffer: int

    @property
    def n_validation(self) -> int:
        """Number of validation spots over all folds."""
        return sum(len(validation) for _, validation in self.folds)


@dataclass(frozen=True)
class BufferedRows:
    """Rows of a section: held out, in the buffer around them, and the remaining ones."""

    held_out: SpotRows
    buffer: SpotRows
    remaining: SpotRows


def split_sections(
    sections: Sequence[TrainingSection], settings: FinetuneSettings, reach: int
) -> HoldOutSplit:
    """Split the spots of sections.

    Parameters
    ----------
    reach
        Array steps over which a label is averaged.

    Raises
    ------
    SpotsError
        When there are too few spots or sections for the three subsets.
    """
    test_rows = draw_held_out_rows([s.array_coordinates for s in sections], settings)
    all_rows = [np.arange(len(s)) for s in sections]
    outer = [
        separate_with_buffer(section.array_coordinates, rows, held_out, reach)
        for section, rows, held_out in zip(sections, all_rows, test_rows, strict=True)
    ]
    train_rows = [o.remaining if len(o.remaining) >= MIN_SPOTS else o.remaining[:0] for o in outer]
    train = _make_training_subset(sections, train_rows)
    fold_rows = [
        _split_rows_into_folds(section.array_coordinates, rows)
        for section, rows in zip(sections, train_rows, strict=True)
    ]
    folds = []
    for number in range(N_FOLDS):
        inner = [
            separate_with_buffer(section.array_coordinates, rows, parts[number], reach)
            for section, rows, parts in zip(sections, train_rows, fold_rows, strict=True)
        ]
        fold_train, validation = [i.remaining for i in inner], [i.held_out for i in inner]
        if min(sum(map(len, fold_train)), sum(map(len, validation))) < MIN_SPOTS:
            continue
        outside_training = [np.sort(np.concatenate([i.held_out, i.buffer])) for i in inner]
        folds.append(
            (
                _make_training_subset(sections, fold_train),
                _make_subset(sections, validation, outside_training),
            )
        )
    if not folds:
        names = ", ".join(s.name for s in sections)
        raise SpotsError(
            f"{names}: {sum(map(len, sections))} labelled spots are too few to train, to choose "
            f"the epoch and to report on; {len(train)} were left to train on. Give more spots, "
            "or a smaller share held out."
        )
    return HoldOutSplit(
        _make_subset(sections, test_rows, all_rows),
        train,
        tuple(folds[:1] if len(train) > SINGLE_FOLD_MIN_SPOTS else folds),
        sum(len(o.buffer) for o in outer),
    )


def draw_held_out_rows(
    coordinates: Sequence[ArrayCoordinates], settings: FinetuneSettings
) -> list[SpotRows]:
    """Draw the test rows of each section.

    Parameters
    ----------
    coordinates
        (N, 2) array coordinates of the spots of each section.

    Raises
    ------
    SpotsError
        When there are too few spots or sections.
    """
    all_rows = [np.arange(len(c)) for c in coordinates]
    if settings.hold_out is HoldOutUnit.blocks:
        return [
            draw_blocks(c, rows, settings.share, settings.seed)
            for c, rows in zip(coordinates, all_rows, strict=True)
        ]
    n_sections = len(coordinates)
    if n_sections < 2:
        raise SpotsError("Holding out whole sections takes at least two; hold out blocks instead.")
    count = min(max(1, round(settings.share * n_sections)), n_sections - 1)
    drawn = set(np.random.default_rng(settings.seed).permutation(n_sections)[:count].tolist())
    return [rows if i in drawn else rows[:0] for i, rows in enumerate(all_rows)]


def split_into_blocks(
    coordinates: ArrayCoordinates, size: float = SPOTS_PER_BLOCK
) -> tuple[SpotRows, ...]:
    """Split N spots at (N, 2) array coordinates into contiguous blocks of equal size.

    Each step halves all blocks along their longer side.
    """
    n_halvings = max(0, round(np.log2(max(len(coordinates), 1) / size)))
    blocks = [np.arange(len(coordinates))]
    for _ in range(n_halvings):
        blocks = [half for block in blocks for half in _halve_block(coordinates, block)]
    return tuple(blocks)


def separate_with_buffer(
    coordinates: ArrayCoordinates, rows: SpotRows, held_out: SpotRows, reach: int
) -> BufferedRows:
    """Separate held-out rows from the others by the rows at most ``reach`` array steps away."""
    others = np.setdiff1d(rows, held_out)
    is_near = _is_within_reach(coordinates, others, held_out, reach)
    return BufferedRows(held_out, others[is_near], others[~is_near])


def draw_blocks(coordinates: ArrayCoordinates, rows: SpotRows, share: float, seed: int) -> SpotRows:
    """Draw whole blocks at random, about a share of the rows.

    Raises
    ------
    SpotsError
        When there are too few rows for two subsets.
    """
    target = share * len(rows)
    if min(target, len(rows) - target) < MIN_SPOTS:
        raise SpotsError(
            f"{len(rows)} labelled spots are too few to hold some of them out; "
            f"each part needs {MIN_SPOTS}."
        )
    block_size = min(SPOTS_PER_BLOCK, max(MIN_SPOTS, int(target)))
    blocks = split_into_blocks(coordinates[rows], block_size)
    drawn: list[SpotRows] = []
    count = 0
    for i in np.random.default_rng(seed).permutation(len(blocks)):
        drawn_with = count + len(blocks[i])
        if count and abs(drawn_with - target) > abs(count - target):
            break
        if count and len(rows) - drawn_with < MIN_SPOTS:  # nothing would be left to train on
            break
        drawn.append(blocks[i])
        count += len(blocks[i])
    return np.sort(rows[np.concatenate(drawn)])


def _halve_block(coordinates: ArrayCoordinates, block: SpotRows) -> tuple[SpotRows, SpotRows]:
    positions = coordinates[block]
    axis = int(np.argmax(np.ptp(positions, axis=0)))
    order = np.lexsort((positions[:, 1 - axis], positions[:, axis]))
    middle = len(block) // 2
    return block[order[:middle]], block[order[middle:]]


def _is_within_reach(
    coordinates: ArrayCoordinates, rows: SpotRows, held_out: SpotRows, reach: int
) -> NDArray[np.bool_]:
    """Return which rows are within reach of a held-out spot.

    The reach along x is doubled on a hexagonal array, where adjacent spots are two steps apart.
    """
    limits = np.array([reach * (2 if is_hexagonal(coordinates, min_spots=3) else 1), reach])
    if not len(held_out):
        return np.zeros(len(rows), dtype=bool)
    distances = np.abs(coordinates[rows][:, None] - coordinates[held_out][None])
    is_near: NDArray[np.bool_] = (distances <= limits).all(axis=2).any(axis=1)
    return is_near


def _split_rows_into_folds(coordinates: ArrayCoordinates, rows: SpotRows) -> list[SpotRows]:
    """Split training rows into N_FOLDS contiguous parts."""
    if not len(rows):
        return [rows] * N_FOLDS
    blocks = split_into_blocks(coordinates[rows], len(rows) / N_FOLDS)
    return [rows[part] for part in _merge_into_folds(blocks)]


def _merge_into_folds(blocks: Sequence[SpotRows]) -> list[SpotRows]:
    """Join blocks, or add empty ones, to get N_FOLDS."""
    ends = np.linspace(0, len(blocks), N_FOLDS + 1).round().astype(int)
    return [
        np.sort(np.concatenate([np.zeros(0, np.int64), *blocks[a:b]])) for a, b in pairwise(ends)
    ]


def _make_training_subset(sections: Sequence[TrainingSection], rows: Sequence[SpotRows]) -> Subset:
    """Average training labels over training spots only."""
    return _make_subset(sections, rows, rows)


def _make_subset(
    sections: Sequence[TrainingSection], rows: Sequence[SpotRows], among: Sequence[SpotRows]
) -> Subset:
    parts = list(zip(sections, rows, among, strict=True))
    return Subset(
        tuple(rows),
        tuple(s.smooth_labels(r, a) for s, r, a in parts),
        tuple(s.smooth_depth(r, a) for s, r, a in parts),
    )
