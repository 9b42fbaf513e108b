"""Three kinds of spots: those that teach, those that choose the epoch, those reported on.

What is reported on is used once, at the end. The epoch is chosen within what teaches: networks
that do without one part of it are judged on that part (`Split.folds`), while the one that is kept
learns from all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...errors import SpotsError
from .blocks import FEWEST, Rows, blocks, draw_blocks, hold_out
from .lesson import Labels, Lesson
from .settings import HoldOut, TuneSettings

FOLDS = 4
MANY = 1000  # spots from which one fold tells enough


@dataclass(frozen=True)
class Part:
    """Rows of each lesson (none of some), and their labels (len(rows), G)."""

    rows: tuple[Rows, ...]
    labels: tuple[Labels, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True)
class Split:
    """report : held out. fit : all that teaches. folds : (what teaches, what chooses) within it.

    between : spots of the ring, in neither.
    """

    report: Part
    fit: Part
    folds: tuple[tuple[Part, Part], ...]
    between: int

    @property
    def choosing(self) -> int:
        """Spots that choose the epoch, over all folds."""
        return sum(len(chosen) for _, chosen in self.folds)


def split(lessons: Sequence[Lesson], settings: TuneSettings, reach: int) -> Split:
    """reach : array steps that a label is averaged over.

    Raises SpotsError when there are too few spots, or sections, for the three parts.
    """
    outs = held_out([le.array for le in lessons], settings)
    every = [np.arange(len(le)) for le in lessons]
    held = [
        hold_out(le.array, rows, out, reach)
        for le, rows, out in zip(lessons, every, outs, strict=True)
    ]
    rests = [h.rest if len(h.rest) >= FEWEST else h.rest[:0] for h in held]
    fit = _teaching(lessons, rests)
    quarters = [_parts(le, rest) for le, rest in zip(lessons, rests, strict=True)]
    folds = []
    for number in range(FOLDS):
        inner = [
            hold_out(le.array, rest, parts[number], reach)
            for le, rest, parts in zip(lessons, rests, quarters, strict=True)
        ]
        taught, chosen = [i.rest for i in inner], [i.out for i in inner]
        if min(sum(map(len, taught)), sum(map(len, chosen))) < FEWEST:
            continue
        among = [np.sort(np.concatenate([i.out, i.ring])) for i in inner]
        folds.append((_teaching(lessons, taught), _judging(lessons, chosen, among)))
    if not folds:
        named = ", ".join(le.name for le in lessons)
        raise SpotsError(
            f"{named}: {sum(map(len, lessons))} labelled spots are too few to teach, to choose the "
            f"epoch and to report on; {len(fit)} were left to learn from. Give more spots, or a "
            "smaller share held out."
        )
    return Split(
        _judging(lessons, outs, every),
        fit,
        tuple(folds[:1] if len(fit) > MANY else folds),
        sum(len(h.ring) for h in held),
    )


def held_out(arrays: Sequence[Rows], settings: TuneSettings) -> list[Rows]:
    """Rows of each section that are reported on; arrays : (N, 2) coordinates of its spots.

    Raises SpotsError when there are too few spots or sections.
    """
    every = [np.arange(len(array)) for array in arrays]
    if settings.hold_out is HoldOut.blocks:
        return [
            draw_blocks(array, rows, settings.share, settings.seed)
            for array, rows in zip(arrays, every, strict=True)
        ]
    if len(arrays) < 2:
        raise SpotsError("Holding out whole sections takes at least two; hold out blocks instead.")
    count = min(max(1, round(settings.share * len(arrays))), len(arrays) - 1)
    drawn = set(np.random.default_rng(settings.seed).permutation(len(arrays))[:count].tolist())
    return [rows if i in drawn else rows[:0] for i, rows in enumerate(every)]


def _parts(lesson: Lesson, rest: Rows) -> list[Rows]:
    """FOLDS contiguous parts of the spots that teach."""
    if not len(rest):
        return [rest] * FOLDS
    return [rest[part] for part in _as_many(blocks(lesson.array[rest], len(rest) / FOLDS))]


def _as_many(found: Sequence[Rows]) -> list[Rows]:
    """The blocks joined, or empty ones added, to be FOLDS."""
    ends = np.linspace(0, len(found), FOLDS + 1).round().astype(int)
    return [
        np.sort(np.concatenate([np.zeros(0, np.int64), *found[a:b]])) for a, b in pairwise(ends)
    ]


def _teaching(lessons: Sequence[Lesson], rows: Sequence[Rows]) -> Part:
    """Labels that teach are averaged over spots that teach, and over no others."""
    return _judging(lessons, rows, rows)


def _judging(lessons: Sequence[Lesson], rows: Sequence[Rows], among: Sequence[Rows]) -> Part:
    labels = [le.labels(r, a) for le, r, a in zip(lessons, rows, among, strict=True)]
    return Part(tuple(rows), tuple(labels))
