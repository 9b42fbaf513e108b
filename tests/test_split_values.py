"""Splits of spots and sections against small cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_dkan.errors import SpotsError
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.training.evaluation.folds import Fold, make_folds
from napari_dkan.training.finetuning.finetune_settings import FinetuneSettings, HoldOutUnit
from napari_dkan.training.finetuning.hold_out_split import (
    HoldOutSplit,
    draw_blocks,
    draw_held_out_rows,
    separate_with_buffer,
    split_into_blocks,
    split_sections,
)
from napari_dkan.training.finetuning.training_section import TrainingSection
from napari_dkan.training.train_settings import FoldUnit

from .tiny_sections import tiny_section


def grid(columns: int, rows: int) -> np.ndarray:
    at = np.arange(columns * rows)
    return np.stack([at % columns, at // columns], axis=1)


def lists(blocks) -> list[list[int]]:
    return [b.tolist() for b in blocks]


# --- blocks of spots ------------------------------------------------------------------


def test_blocks_are_halves_along_the_longer_side() -> None:
    wide = grid(6, 2)  # rows 0 to 5 above, 6 to 11 below
    assert lists(split_into_blocks(wide, 6)) == [[0, 6, 1, 7, 2, 8], [3, 9, 4, 10, 5, 11]]
    found = split_into_blocks(wide, 3)
    assert lists(found) == [[0, 6, 1], [7, 2, 8], [3, 9, 4], [10, 5, 11]]
    high = wide[:, ::-1]
    assert lists(split_into_blocks(high, 3)) == lists(found)
    assert lists(split_into_blocks(grid(7, 1), 4)) == [[0, 1, 2], [3, 4, 5, 6]]


def test_the_number_of_blocks_is_a_power_of_two_near_the_size_asked_for() -> None:
    assert len(split_into_blocks(grid(9, 9))) == 4  # of about 20
    assert [len(split_into_blocks(grid(10, 10), size)) for size in (8, 9, 17, 18, 71, 400)] == [
        16,
        8,
        8,
        4,
        1,
        1,
    ]
    assert lists(split_into_blocks(np.zeros((0, 2), np.int64))) == [[]]
    assert lists(split_into_blocks(grid(1, 1), 1.0)) == [[0]]


def test_spots_within_reach_of_held_out_ones_are_the_buffer() -> None:
    array, rows = grid(5, 5), np.arange(25)
    found = separate_with_buffer(array, rows, np.array([12]), 1)
    assert found.held_out.tolist() == [12]
    assert found.buffer.tolist() == [6, 7, 8, 11, 13, 16, 17, 18]
    assert sorted([*found.remaining, *found.buffer, 12]) == list(range(25))
    assert len(separate_with_buffer(array, rows, np.array([12]), 0).buffer) == 0
    assert len(separate_with_buffer(array, rows, np.array([12]), 2).remaining) == 0
    assert separate_with_buffer(array, rows, np.array([0, 24]), 1).buffer.tolist() == [
        *(1, 5, 6),
        *(18, 19, 23),
    ]
    some = separate_with_buffer(array, rows[10:], np.array([12]), 1)
    assert some.buffer.tolist() == [11, 13, 16, 17, 18] and 0 not in some.remaining
    none = separate_with_buffer(array, rows, rows[:0], 1)
    assert none.remaining.tolist() == list(range(25)) and len(none.buffer) == 0


def test_a_hexagonal_array_reaches_two_columns() -> None:
    square = grid(9, 3)
    even = np.flatnonzero(square.sum(axis=1) % 2 == 0)
    array = square[even]  # every second place, as on Visium
    middle = np.flatnonzero((array == [4, 0]).all(axis=1))
    for shift in (0, 1):  # sums all even or all odd
        found = separate_with_buffer(array + np.array([shift, 0]), np.arange(len(array)), middle, 1)
        assert array[found.buffer].tolist() == [[2, 0], [6, 0], [3, 1], [5, 1]]
    # of two spots nothing tells that the array is hexagonal
    two = np.array([[0, 0], [2, 0]])
    assert len(separate_with_buffer(two, np.arange(2), np.array([0]), 1).buffer) == 0
    three = np.array([[0, 0], [2, 0], [6, 0]])
    assert separate_with_buffer(three, np.arange(3), np.array([0]), 1).buffer.tolist() == [1]


def test_some_spots_are_always_left_to_train_on() -> None:
    for spots, share in ((32, 0.75), (40, 0.8), (33, 0.7)):
        array = grid(spots, 1)
        for seed in range(5):
            drawn = draw_blocks(array, np.arange(spots), share, seed)
            assert 8 <= len(drawn) <= spots - 8


def test_whole_blocks_are_drawn_up_to_the_share() -> None:
    array, rows = grid(16, 10), np.arange(160)
    blocks = [set(b.tolist()) for b in split_into_blocks(array)]
    assert len(blocks) == 8
    for seed in range(4):
        drawn = draw_blocks(array, rows, 0.25, seed)
        assert len(drawn) == 40 and drawn.tolist() == sorted(drawn)
        inside = [b for b in blocks if b <= set(drawn.tolist())]
        order = np.random.default_rng(seed).permutation(8)[:2]
        assert len(inside) == 2 and all(blocks[i] in inside for i in order)
    # the number of spots nearest to the share, and at least one block
    assert [
        len(draw_blocks(array, rows, share, 1)) for share in (0.1, 0.18, 0.1875, 0.32, 0.9)
    ] == [
        20,
        20,
        40,
        60,
        140,
    ]


def test_blocks_are_no_larger_than_the_share_and_no_smaller_than_a_part() -> None:
    array, rows = grid(16, 4), np.arange(64)
    assert len(draw_blocks(array, rows, 0.25, 3)) == 16
    assert len(draw_blocks(array, rows, 0.125, 3)) == 8
    # only some rows of the section are labelled
    drawn = draw_blocks(grid(16, 8), np.arange(64) + 64, 0.25, 3)
    assert len(drawn) == 16 and drawn.min() >= 64


def test_too_few_spots_to_draw_from() -> None:
    array = grid(8, 4)
    assert len(draw_blocks(array, np.arange(32), 0.25, 0)) == 8
    assert len(draw_blocks(array, np.arange(32), 0.75, 0)) in (16, 32)
    for rows, share in ((31, 0.25), (31, 0.75), (15, 0.5)):
        with pytest.raises(SpotsError, match=f"^{rows} labelled spots are too few"):
            draw_blocks(array, np.arange(rows), share, 0)


# --- training, validation and test ----------------------------------------------------


def section(columns: int, rows: int, seed: int = 0, smoothing: int = 3) -> TrainingSection:
    """A section of which only positions and unsmoothed labels are needed."""
    spots = columns * rows
    prepared = replace(tiny_section(seed, spots=1), positions=torch.from_numpy(grid(columns, rows)))
    labels = np.random.default_rng(seed).normal(size=(spots, 2)).astype(np.float32)
    encoded: Any = SimpleNamespace(section=prepared)
    scale = LabelScale(smoothing=smoothing)
    return TrainingSection(encoded, labels, np.ones(2, bool), np.arange(spots), spots, scale)


def smoothed(s: TrainingSection, rows, among) -> np.ndarray:
    """Plain means over the 3 x 3 places around each row, over the spots given."""
    at, out = s.array_coordinates, []
    for row in rows:
        near = [r for r in among if np.abs(at[r] - at[row]).max() <= 1]
        out.append(s.unsmoothed_labels[near].mean(axis=0))
    return np.array(out).reshape(-1, 2)


def within(s: TrainingSection, rows, of) -> set[int]:
    """The rows that lie one place from a row of the others."""
    at = s.array_coordinates
    return {int(r) for r in rows if any(np.abs(at[r] - at[o]).max() <= 1 for o in of)}


def check(split: HoldOutSplit, sections: list[TrainingSection]) -> None:
    """What must hold of every split of square arrays with a reach of one."""
    ring = 0
    for number, s in enumerate(sections):
        every = set(range(len(s)))
        test, train = (set(map(int, p.rows[number])) for p in (split.test, split.train))
        buffer = within(s, every - test, test)
        assert train in (every - test - buffer, set())
        ring += len(buffer)
        wanted = smoothed(s, split.test.rows[number], every)
        np.testing.assert_allclose(split.test.labels[number], wanted, rtol=1e-4, atol=1e-6)
        wanted = smoothed(s, split.train.rows[number], train)
        np.testing.assert_allclose(split.train.labels[number], wanted, rtol=1e-4, atol=1e-6)
        for taught, chosen in split.folds:
            t, c = set(map(int, taught.rows[number])), set(map(int, chosen.rows[number]))
            between = within(s, train - c, c)
            assert c <= train and t == train - c - between
            wanted = smoothed(s, taught.rows[number], t)
            np.testing.assert_allclose(taught.labels[number], wanted, rtol=1e-4, atol=1e-6)
            wanted = smoothed(s, chosen.rows[number], c | between)
            np.testing.assert_allclose(chosen.labels[number], wanted, rtol=1e-4, atol=1e-6)
    assert split.n_buffer == ring
    assert split.n_validation == sum(len(c) for _, c in split.folds)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_split_of_one_section(seed: int) -> None:
    one = section(16, 16)
    split = split_sections([one], FinetuneSettings(seed=seed), 1)
    check(split, [one])
    assert (
        split.test.rows[0].tolist()
        == draw_blocks(one.array_coordinates, np.arange(256), 0.25, seed).tolist()
    )
    assert len(split.folds) == 4 and len(split.test) == 64
    # every spot that teaches chooses once, in contiguous parts of about a quarter
    chosen = [c.rows[0] for _, c in split.folds]
    assert sorted(np.concatenate(chosen).tolist()) == split.train.rows[0].tolist()
    assert max(map(len, chosen)) - min(map(len, chosen)) <= 1
    assert all((np.diff(c) > 0).all() for c in chosen)
    quarters = split_into_blocks(one.array_coordinates[split.train.rows[0]], len(split.train) / 4)
    assert lists(chosen) == [sorted(split.train.rows[0][q].tolist()) for q in quarters]


def test_few_spots_make_four_folds_of_a_quarter_each() -> None:
    one = section(9, 9)
    split = split_sections([one], FinetuneSettings(), 1)
    check(split, [one])
    assert len(split.folds) == 4 and len(split.train) < 60
    sizes = [len(chosen) for _, chosen in split.folds]
    assert max(sizes) - min(sizes) <= 1


def test_a_split_of_two_sections_and_one_too_small_to_teach() -> None:
    two = [section(12, 10), section(9, 9, 1), section(4, 4, 2)]
    split = split_sections(two, FinetuneSettings(share=0.5), 1)
    check(split, two)
    assert len(split.train.rows[2]) == 0 and len(split.test.rows[2]) == 8
    assert len(split.train.rows[0]) and len(split.train.rows[1])


def test_a_section_with_eight_spots_left_teaches_with_them() -> None:
    pair = [section(14, 14, 0, 1), section(4, 4, 1, 1)]
    split = split_sections(pair, FinetuneSettings(share=0.5), 0)
    assert len(split.test.rows[1]) == len(split.train.rows[1]) == 8


def test_whole_sections_are_held_out() -> None:
    arrays = [grid(3, 3)] * 5
    settings = FinetuneSettings(hold_out=HoldOutUnit.sections, share=0.4, seed=7)
    drawn = draw_held_out_rows(arrays, settings)
    out = {i for i, rows in enumerate(drawn) if len(rows)}
    assert out == set(np.random.default_rng(7).permutation(5)[:2].tolist())
    assert all(rows.tolist() in (list(range(9)), []) for rows in drawn)
    counts = [
        sum(map(bool, map(len, draw_held_out_rows(arrays[:n], replace(settings, share=share)))))
        for n, share in ((2, 0.1), (2, 0.75), (5, 0.1), (4, 0.75), (5, 0.5), (5, 0.7))
    ]
    assert counts == [1, 1, 1, 3, 2, 4]
    with pytest.raises(SpotsError, match="at least two"):
        draw_held_out_rows(arrays[:1], settings)
    pair = [section(9, 9), section(9, 9, 1)]
    split = split_sections(pair, settings, 1)
    check(split, pair)
    assert sorted(map(len, split.test.rows)) == [0, 81] and split.n_buffer == 0


def test_a_fold_without_enough_spots_is_left_out() -> None:
    # 6 x 6: 9 are held out; with the rings too few are left to teach and to choose
    with pytest.raises(SpotsError, match=r"^S0: 36 labelled spots are too few to train"):
        split_sections([section(6, 6)], FinetuneSettings(), 1)
    pair = [section(4, 9), section(4, 9, 1)]
    with pytest.raises(SpotsError, match=r"^S0, S1: 72 labelled spots .* left to train on"):
        split_sections(pair, FinetuneSettings(share=0.5), 3)


def test_among_many_spots_one_fold_chooses() -> None:
    settings = FinetuneSettings(hold_out=HoldOutUnit.sections, share=0.5)
    for columns, folds in ((50, 4), (51, 1)):
        pair = [section(columns, 20, 0, 1), section(columns, 20, 1, 1)]
        split = split_sections(pair, settings, 0)
        assert (len(split.train), len(split.folds)) == (columns * 20, folds)
    rest = next(rows for rows in split.train.rows if len(rows))
    first = split_into_blocks(pair[0].array_coordinates, len(rest) / 4)[0]
    assert np.concatenate(split.folds[0][1].rows).tolist() == sorted(first.tolist())


def test_the_reach_of_labels_is_the_width_of_the_buffer() -> None:
    one = section(16, 16, smoothing=5)
    at = one.array_coordinates
    split = split_sections([one], FinetuneSettings(), 2)
    apart = np.abs(at[split.train.rows[0]][:, None] - at[split.test.rows[0]][None]).max(axis=2)
    assert apart.min() == 3
    for taught, chosen in split.folds:
        apart = np.abs(at[taught.rows[0]][:, None] - at[chosen.rows[0]][None]).max(axis=2)
        assert apart.min() == 3


# --- folds of cross-validation --------------------------------------------------------


def sections(patients: str, names: str = "") -> list:
    made = [tiny_section(i, 1, patient=p.strip()) for i, p in enumerate(patients)]
    return [replace(s, name=n) for s, n in zip(made, names or "PQRSTU", strict=False)]


def test_the_section_after_the_tested_one_validates() -> None:
    assert make_folds(sections("AAAA")) == [
        Fold("P", ("P",), ("Q", "R", "S"), ("Q",)),
        Fold("Q", ("Q",), ("P", "R", "S"), ("R",)),
        Fold("R", ("R",), ("P", "Q", "S"), ("S",)),
        Fold("S", ("S",), ("P", "Q", "R"), ("P",)),
    ]
    assert len(make_folds(sections("AAA"))) == 3
    assert make_folds(sections("AAA"))[2].training_without_validation == ("Q",)


def test_too_few_or_repeated_sections_make_no_folds() -> None:
    with pytest.raises(SpotsError, match="at least 3 sections, not 2"):
        make_folds(sections("AB"))
    with pytest.raises(SpotsError, match="The section Q is given twice"):
        make_folds(sections("ABCD", "PQQR"))
    with pytest.raises(SpotsError, match="The section Q is given twice"):
        make_folds(sections("ABCD", "PQQR"), FoldUnit.patient)


def test_the_patient_after_the_tested_one_validates() -> None:
    assert make_folds(sections("ABACB"), FoldUnit.patient) == [
        Fold("patient A", ("P", "R"), ("Q", "T", "S"), ("Q", "T")),
        Fold("patient B", ("Q", "T"), ("P", "R", "S"), ("S",)),
        Fold("patient C", ("S",), ("P", "R", "Q", "T"), ("P", "R")),
    ]


def test_of_two_patients_one_section_of_the_other_validates() -> None:
    assert make_folds(sections("AABB"), FoldUnit.patient) == [
        Fold("patient A", ("P", "Q"), ("R", "S"), ("S",)),
        Fold("patient B", ("R", "S"), ("P", "Q"), ("Q",)),
    ]


def test_folds_by_patient_that_cannot_be() -> None:
    with pytest.raises(SpotsError, match="which patient Q, R, S is from"):
        make_folds(sections("A    "), FoldUnit.patient)
    with pytest.raises(SpotsError, match="all 3 are of patient A"):
        make_folds(sections("AAA"), FoldUnit.patient)
    with pytest.raises(SpotsError, match="With patient A tested, R is the only section left"):
        make_folds(sections("AAB"), FoldUnit.patient)
