"""Labels and spot arrays against numbers worked out by hand."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sparse
from scipy.spatial import cKDTree  # noqa: F401  loaded before the process is forked

from napari_dkan.errors import SpotsError
from napari_dkan.expression.array_geometry import (
    array_coords_from_lattice,
    fit_mpp,
    mpp_from_spots,
)
from napari_dkan.expression.label_scale import (
    LabelScale,
    array_coords_from_section,
    labels_from_section,
)
from napari_dkan.expression.panel import Panel
from napari_dkan.spatial.spots import Spots

# --- labels -------------------------------------------------------------------------


def test_counts_are_scaled_to_ten_thousand_and_logged() -> None:
    labels = LabelScale().normalize_and_log(np.array([[1.0, 3.0], [5.0, 0.0]]))
    assert labels.dtype == np.float32
    wanted = [[np.log10(2501), np.log10(7501)], [np.log10(10_001), 0]]
    np.testing.assert_allclose(labels, wanted, rtol=1e-6)
    fractions = LabelScale().normalize_and_log(np.array([[0.1, 0.3]]))  # of corrected counts
    np.testing.assert_allclose(fractions, wanted[:1], rtol=1e-6)


def test_the_scale_and_the_base_can_be_chosen() -> None:
    scale = LabelScale(target_sum=100.0, base=2.0)
    labels = scale.normalize_and_log(np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(labels, [[np.log2(26), np.log2(76)]], rtol=1e-6)


@pytest.mark.parametrize("counts", [[[1.0, 1.0], [0.0, 0.0]], [[2.0, -3.0]]])
def test_a_total_that_is_not_positive_cannot_be_scaled(counts) -> None:
    with pytest.raises(ValueError, match="zero panel total"):
        LabelScale().normalize_and_log(np.array(counts))


def test_the_name_of_a_scale_says_how_labels_are_made() -> None:
    assert LabelScale().name == "log10(1 + counts per 10k of panel), 3x3 mean"
    assert LabelScale(1000.0, np.e, 1).name == "ln(1 + counts per 1k of panel)"
    assert LabelScale(999.5, 2.0, 5).name == "log2(1 + counts per 999.5 of panel), 5x5 mean"


# A plus of five spots and one far away: (x, y) -> value.
PLUS = np.array([[2, 2], [1, 2], [3, 2], [2, 1], [2, 3], [7, 2]])
VALUES = np.array([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]], np.float32)


def test_labels_are_averaged_over_the_neighbours_that_are_there() -> None:
    smoothed = LabelScale().smooth(VALUES, PLUS)
    # diagonal neighbours count: (1, 2) has itself, the centre, (2, 1) and (2, 3)
    wanted = [31 / 5, (2 + 1 + 8 + 16) / 4, (4 + 1 + 8 + 16) / 4, (8 + 1 + 2 + 4) / 4]
    wanted += [(16 + 1 + 2 + 4) / 4, 32]
    np.testing.assert_allclose(smoothed[:, 0], wanted)
    assert smoothed.dtype == np.float32


def test_the_neighbourhood_is_as_wide_as_it_says() -> None:
    line = np.array([[x, 0] for x in range(6)])
    values = np.array([[2.0**x] for x in range(6)], np.float32)
    five = LabelScale(smoothing=5).smooth(values, line)
    np.testing.assert_allclose(five[:, 0], [7 / 3, 15 / 4, 31 / 5, 62 / 5, 60 / 4, 56 / 3])
    upright = LabelScale(smoothing=5).smooth(values, line[:, ::-1])
    np.testing.assert_array_equal(upright, five)


def test_without_smoothing_spots_on_one_place_keep_their_own_label() -> None:
    twice = np.array([[0, 0], [0, 0]])
    assert LabelScale(smoothing=1).smooth(VALUES[:2], twice).tolist() == [[1.0], [2.0]]
    assert LabelScale(smoothing=2).smooth(VALUES[:2], PLUS[:2]).tolist() == [[1.5], [1.5]]


def section(counts, genes=("A", "B", "C"), **uns) -> anndata.AnnData:
    n = len(counts)
    obs = pd.DataFrame(
        {"array_col": np.arange(n) + 4, "array_row": np.full(n, 9)},
        index=[f"s{i}" for i in range(n)],
    )
    data = anndata.AnnData(np.asarray(counts, np.float32), obs, pd.DataFrame(index=list(genes)))
    data.uns = uns
    return data


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_a_section_gives_labels_of_the_panel_alone(kind) -> None:
    data = section([[1, 100, 3], [0, 7, 0], [4, 0, 4], [1, 0, 0]])
    data.X = kind(data.X)
    labels = labels_from_section(data, Panel.from_symbols(["C", "A"]), LabelScale())
    assert labels.rows.tolist() == [0, 2, 3] and labels.dropped_spots == ("s1",)
    # the second spot is dropped before smoothing, so the first has no neighbour
    first = [np.log10(7501), np.log10(2501)]
    third, fourth = np.full(2, np.log10(5001)), np.array([0, np.log10(10_001)])
    wanted = [first, (third + fourth) / 2, (third + fourth) / 2]
    np.testing.assert_allclose(labels.values, wanted, rtol=1e-6)


def test_sections_without_labels_are_refused_by_name() -> None:
    panel = Panel.from_symbols(["A", "X", "B", "Y", "Z", "W"])
    with pytest.raises(SpotsError) as refused:
        labels_from_section(section([[1, 1, 1]], section="drawn"), panel, LabelScale())
    said = "drawn does not measure 4 of the panel's 6 genes (X, Y, Z, ...); "
    assert str(refused.value).startswith(said)
    panel = Panel.from_symbols(["A", "B"])
    for counts in ([[1, -1, 5]], [[np.nan, 1, 0]], [[1, np.inf, 0]]):
        with pytest.raises(SpotsError, match=r"^the section holds negative or missing counts"):
            labels_from_section(section(counts), panel, LabelScale())
    with pytest.raises(SpotsError, match=r"^No spot of the section has a count"):
        labels_from_section(section([[0, 0, 5], [0, 0, 1]]), panel, LabelScale())


def test_array_coordinates_are_column_then_row() -> None:
    data = section([[1, 1, 1], [2, 2, 2]], section="drawn")
    coordinates = array_coords_from_section(data)
    assert coordinates.tolist() == [[4, 9], [5, 9]] and coordinates.dtype == np.int64
    data.obs["array_col"] = ["1", "x"]
    with pytest.raises(SpotsError, match=r"^drawn has no whole array coordinates"):
        array_coords_from_section(data)
    for wrong in (np.nan, 1.5, np.inf):
        data.obs["array_col"] = [1.0, wrong]
        with pytest.raises(SpotsError, match=r"^drawn has no whole array coordinates"):
            array_coords_from_section(data)
    data.obs["array_col"] = [1.0, 2.0]
    assert array_coords_from_section(data)[:, 0].tolist() == [1, 2]
    del data.obs["array_col"], data.uns["section"]
    with pytest.raises(SpotsError, match=r"^The section has no whole array coordinates"):
        array_coords_from_section(data)


# --- pixel size from an array ---------------------------------------------------------


def grid(columns: int, rows: int) -> np.ndarray:
    y, x = (a.ravel() for a in np.mgrid[:rows, :columns])
    return np.column_stack([x, y]).astype(float)


def turned(xy: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return xy @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("degrees", [0, 30, -120])
@pytest.mark.parametrize("mirror", [1, -1])
def test_pixel_size_is_the_pitch_over_the_pixels_it_spans(degrees: float, mirror: int) -> None:
    array = grid(5, 4)
    pixels = turned(array * [mirror * 250, 250], degrees) + np.array([1e4, -300])
    assert fit_mpp(array, pixels, 200.0) == pytest.approx(0.8, rel=1e-9)
    assert fit_mpp(array, pixels, 200.0, 0.25) == pytest.approx(0.4, rel=1e-9)


def test_a_misplaced_spot_does_not_move_the_pixel_size() -> None:
    array = grid(6, 5)
    pixels = array * 100.0
    pixels[29] += [4000, -1500]
    assert fit_mpp(array, pixels, 100.0) == pytest.approx(1.0, rel=1e-6)
    assert fit_mpp(array, pixels / 100, 100.0) == pytest.approx(100.0, rel=1e-6)
    assert fit_mpp(array, pixels / 1000, 100.0) == pytest.approx(1000.0, rel=1e-6)


def test_the_fit_is_that_of_tukeys_weights() -> None:
    random = np.random.default_rng(1)
    array = grid(6, 5)
    pixels = array * 100.0 + random.standard_t(1, size=array.shape) * 8
    design = np.column_stack([array, np.ones(len(array))])
    weight = np.ones(len(array))
    for _ in range(20):
        normal = design.T @ (weight[:, None] * design)
        affine = np.linalg.solve(normal, design.T @ (weight[:, None] * pixels))
        distance = np.hypot(*(pixels - design @ affine).T)
        cut = 4.685 * 1.4826 * np.median(distance)  # of a normal distribution: 4.685 deviations
        weight = np.where(distance < cut, (1 - (distance / cut) ** 2) ** 2, 0)
    assert (weight == 0).any() and (weight > 0).any()
    (a, b), (c, d) = affine[:2]
    assert fit_mpp(array, pixels, 100.0) == pytest.approx(100 / np.sqrt(a * d - b * c), rel=1e-9)


def test_spots_that_span_no_plane_have_no_pixel_size() -> None:
    square = grid(2, 2)
    assert fit_mpp(square, square * 50, 100.0) == pytest.approx(2.0)
    for array in (square[:3], grid(6, 1), np.ones((5, 2))):
        with pytest.raises(SpotsError, match="cannot be fitted: it takes four spots"):
            fit_mpp(array, array * 50, 100.0)
    for pixels in (np.zeros((4, 2)), square * [50, 0]):
        with pytest.raises(SpotsError, match="all spots lie on the same pixels"):
            fit_mpp(square, pixels, 100.0)


def visium(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Array coordinates and positions in pitches of a hexagonal array."""
    at = grid(columns, rows).astype(int)
    array = np.column_stack([2 * at[:, 0] + at[:, 1] % 2, at[:, 1]])
    return array, array * [0.5, np.sqrt(3) / 2]


def test_square_and_hexagonal_arrays_give_the_same_pixel_size() -> None:
    array = grid(5, 5).astype(int)
    spots = Spots(array * 160.0, array, pitch_um=80.0)
    assert mpp_from_spots(spots) == pytest.approx(0.5)
    array, places = visium(7, 3)
    spots = Spots(places * 160.0, array, pitch_um=80.0)
    assert len(spots) == 21 and mpp_from_spots(spots) == pytest.approx(0.5)
    odd = Spots(places * 160.0, array + np.array([1, 0]), pitch_um=80.0)  # all sums odd
    assert mpp_from_spots(odd) == pytest.approx(0.5)
    # among few spots the empty places may be chance: taken for a square array
    few = mpp_from_spots(spots.take(np.arange(20)))
    assert few == pytest.approx(80 / 160 / np.sqrt(np.sqrt(3) / 4))


def test_spots_that_do_not_tell_give_no_pixel_size() -> None:
    array = grid(2, 2).astype(int)
    spots = Spots(array * 50.0, array, pitch_um=100.0)
    assert mpp_from_spots(spots) == pytest.approx(2.0)
    assert mpp_from_spots(spots.take([0, 1, 2])) is None
    assert mpp_from_spots(Spots(spots.xy, None, pitch_um=100.0)) is None
    assert mpp_from_spots(Spots(spots.xy, array)) is None
    assert mpp_from_spots(Spots(spots.xy * 0, array, pitch_um=100.0)) is None


# --- array coordinates of a lattice ---------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 12, -30])
def test_a_square_lattice_gets_its_columns_and_rows(degrees: float) -> None:
    array = grid(7, 5).astype(int)
    keep = np.delete(np.arange(35), [3, 11, 12, 20])  # gaps
    order = np.random.default_rng(0).permutation(keep)
    found = array_coords_from_lattice(turned(array[order] * 130.0, degrees) + 5000)
    assert found is not None and found.dtype == np.int64
    assert found.tolist() == array[order].tolist()


@pytest.mark.parametrize("first", range(4))
def test_coordinates_begin_at_zero_whichever_spot_comes_first(first: int) -> None:
    array = np.roll(grid(5, 4), -first, axis=0).astype(int)
    found = array_coords_from_lattice(array * 0.5)
    assert found is not None and found.tolist() == array.tolist()


def test_every_spot_may_miss_its_place_a_little() -> None:
    array = grid(14, 14).astype(int)
    jitter = np.random.default_rng(0).uniform(-7, 7, array.shape)
    found = array_coords_from_lattice(array * 100 + jitter)
    assert found is not None and found.tolist() == array.tolist()


@pytest.mark.parametrize("degrees", [0, 12, -25])
def test_a_hexagonal_lattice_gets_visium_coordinates(degrees: float) -> None:
    array, places = visium(6, 5)
    order = np.random.default_rng(0).permutation(len(array))
    found = array_coords_from_lattice(turned(places[order] * 130.0, degrees) - 700)
    assert found is not None and found.tolist() == array[order].tolist()


def test_rows_of_a_hexagonal_lattice_keep_their_parity() -> None:
    array, places = visium(6, 6)
    later = array[:, 1] >= 1  # the first row left begins half a pitch to the right
    found = array_coords_from_lattice(places[later] * 100)
    assert found is not None and found.tolist() == array[later].tolist()


def test_an_island_lies_on_the_same_lattice() -> None:
    for array, places in ((grid(9, 9).astype(int),) * 2, visium(9, 9)):
        apart = (array[:, 1] < 5) | ((array[:, 1] > 6) & (array[:, 0] > 3))
        found = array_coords_from_lattice(np.asarray(places)[apart][::-1] * 90.0)
        assert found is not None and found.tolist() == array[apart][::-1].tolist()


def test_a_stretched_and_sheared_lattice_is_one() -> None:
    array = grid(12, 12).astype(int)
    found = array_coords_from_lattice(array @ np.array([[104.0, 2.0], [3.0, 97.0]]))
    assert found is not None and found.tolist() == array.tolist()


def test_a_spot_may_miss_its_place_by_less_than_a_third_of_a_pitch() -> None:
    array = grid(20, 20).astype(int)
    for miss, is_lattice in ((0.27, True), (0.34, False)):
        xy = array * 100.0
        xy[210] += [100 * miss, 0]
        found = array_coords_from_lattice(xy)
        assert (found is not None) == is_lattice
        assert found is None or found.tolist() == array.tolist()


def test_what_is_no_lattice_gets_no_coordinates() -> None:
    lattice = grid(4, 4) * 100
    assert array_coords_from_lattice(lattice) is not None
    assert array_coords_from_lattice(lattice[:15]) is None
    assert array_coords_from_lattice(np.where(lattice == 0, np.nan, lattice)) is None
    assert array_coords_from_lattice(grid(20, 1) * 100) is None
    assert array_coords_from_lattice(np.zeros((20, 2))) is None
    assert array_coords_from_lattice(np.concatenate([lattice, lattice[:1]])) is None
    assert array_coords_from_lattice(np.random.default_rng(0).uniform(0, 900, (60, 2))) is None
    pairs = grid(5, 5) * 1000
    assert array_coords_from_lattice(np.concatenate([pairs, pairs + np.array([7, 3])])) is None
