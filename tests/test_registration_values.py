"""Registration of spots to a slide, at the limits from which a person is warned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from napari_dkan.quality.registration_check import check_registration
from napari_dkan.spatial.spots import Spots

ENDING = "; register the spots with three landmarks or give the right file."


def lattice(columns: int = 10, rows: int = 10, step: float = 50.0) -> Spots:
    """Spots 100 um apart and 60 um wide, at 2 um per pixel from (50, 50)."""
    at = np.arange(columns * rows)
    array = np.stack([at % columns, at // columns], axis=1)
    return Spots(50 + step * array, array, (), 60.0, 100.0)


def test_spots_that_lie_right_are_not_warned_of() -> None:
    found = check_registration(lattice(), 600, 600, 2.0, box(0, 0, 600, 600))
    assert found.warning == "" and found.fitted_mpp == pytest.approx(2.0)
    assert not found.off_slide.any() and not found.off_tissue.any()
    assert len(found.off_slide) == len(found.off_tissue) == 100


def test_the_edges_of_the_slide() -> None:
    xy = np.array([[0, 0], [99.9, 49.9], [-0.1, 9], [9, -0.1], [100, 9], [9, 50]])
    found = check_registration(Spots(xy), 100, 50, None, None)
    assert found.off_slide.tolist() == [False, False, True, True, True, True]
    assert found.off_tissue.tolist() == found.off_slide.tolist() and found.fitted_mpp is None
    assert found.warning == (
        "4 of 6 spots lie off the slide: the coordinates may be another slide's, or shifted"
        + ENDING
    )


def test_a_spot_is_off_the_tissue_when_no_part_of_it_touches_any() -> None:
    # at 2 um per pixel a spot reaches 15 px
    spots = Spots(lattice(3, 1, 20.0).xy, None, (), 60.0, 100.0)
    tissue = box(0, 0, 55.0, 600)
    assert check_registration(spots, 600, 600, 2.0, tissue).off_tissue.tolist() == [
        False,
        False,
        True,
    ]
    # at 1 um per pixel 30 px, which is 5 px short for the last one
    assert check_registration(spots, 600, 600, 1.0, tissue).off_tissue.tolist() == [
        False,
        False,
        True,
    ]
    assert not check_registration(spots, 600, 600, 0.8, tissue).off_tissue.any()
    # without a pixel size only the centre counts
    assert check_registration(spots, 600, 600, None, tissue).off_tissue.tolist() == [
        False,
        True,
        True,
    ]
    centres = replace(spots, diameter_um=None)
    assert check_registration(centres, 600, 600, 2.0, tissue).off_tissue.tolist() == [
        False,
        True,
        True,
    ]
    # off the slide is off the tissue
    assert check_registration(spots, 80, 600, 2.0, box(0, 0, 600, 600)).off_tissue.tolist() == [
        False,
        False,
        True,
    ]


def test_a_spot_of_unknown_size_is_a_point() -> None:
    spots = Spots(np.array([[50.0, 50.0], [70.0, 50.0]]))
    tissue = box(0, 0, 69.9, 600)
    for mpp in (2.0, None):
        found = check_registration(spots, 600, 600, mpp, tissue)
        assert found.off_tissue.tolist() == [False, True]
    wide = Spots(spots.xy, diameter_um=60.0)  # without a pixel size that says nothing
    assert check_registration(wide, 600, 600, None, tissue).off_tissue.tolist() == [False, True]


def test_the_pixel_size_of_the_array_stands_in_for_an_unknown_one() -> None:
    tissue = box(0, 0, 436.0, 600)  # 14 px short of the centres of the ninth column
    found = check_registration(lattice(), 600, 600, None, tissue)
    assert found.off_tissue.reshape(10, 10).any(axis=0).tolist() == [False] * 9 + [True]


def test_more_than_one_spot_in_twenty_off_the_tissue_is_told() -> None:
    spots = lattice()
    for rows, warned in ((5, False), (6, True)):
        tissue = box(0, 0, 600, 600) - box(480, 0, 600, 25 + 50 * rows)
        found = check_registration(spots, 600, 600, 2.0, tissue)
        assert found.off_tissue.sum() == rows
        assert found.warning == warned * (
            "6 of 100 spots lie off the tissue: the coordinates may be another slide's, or shifted"
            + ENDING
        )


@pytest.mark.parametrize(
    ("mpp", "warned"), [(1.83, False), (1.81, True), (2.19, False), (2.21, True)]
)
def test_pixel_sizes_a_tenth_apart_are_two(mpp: float, warned: bool) -> None:
    found = check_registration(lattice(), 600, 600, mpp, None)
    assert found.warning == warned * (
        f"The spots may lie wrong: their array fits 2 um per pixel, the slide has {mpp:.3g}: the "
        "coordinates are of a scan of another resolution" + ENDING
    )


def test_the_pixel_size_is_the_cause_before_a_mirrored_array() -> None:
    spots = lattice()
    mirrored = replace(spots, xy=spots.xy[:, ::-1].copy())
    assert check_registration(mirrored, 600, 600, 2.0, None).warning == (
        "The spots may lie wrong: they lie mirrored, as if x and y were swapped" + ENDING
    )
    found = check_registration(mirrored, 520, 600, 4.0, None)
    assert found.warning == (
        "20 of 100 spots lie off the slide: "
        * 0
        + "The spots may lie wrong: their array fits 2 um per pixel, the slide has 4: the "
        "coordinates are of a scan of another resolution" + ENDING
    )
    found = check_registration(mirrored, 480, 600, 2.0, None)
    assert found.warning == (
        "10 of 100 spots lie off the slide: they lie mirrored, as if x and y were swapped" + ENDING
    )


def test_an_array_that_spans_no_plane_is_not_mirrored() -> None:
    line = lattice(10, 1)
    turned = replace(line, xy=line.xy[:, ::-1].copy())
    assert check_registration(turned, 600, 600, None, None).warning == ""
    three = lattice(2, 2).take([0, 1, 2])
    flipped = replace(three, xy=three.xy[:, ::-1].copy())
    assert check_registration(flipped, 600, 600, None, None).warning == ""
    four = lattice(2, 2)
    flipped = replace(four, xy=four.xy[:, ::-1].copy())
    assert "lie mirrored" in check_registration(flipped, 600, 600, None, None).warning
    small = lattice(3, 3, 0.5)  # in a thumbnail
    assert check_registration(small, 600, 600, None, None).warning == ""
    bare = Spots(flipped.xy, None, (), 60.0, 100.0)
    assert check_registration(bare, 600, 600, None, None).warning == ""


def test_a_slide_without_tissue_is_told_unless_something_worse_is() -> None:
    nothing = "No tissue was found on the slide, so nothing tells whether its spots lie right."
    found = check_registration(lattice(), 600, 600, 2.0, Polygon())
    assert found.warning == nothing and not found.off_tissue.any()
    assert "off the slide" in check_registration(lattice(), 300, 600, 2.0, Polygon()).warning
