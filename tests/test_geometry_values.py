"""Grids, polygons, patches and landmarks against small cases worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import shapely
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from napari_dkan.errors import SpotsError
from napari_dkan.inference.patch_features.patch_geometry import (
    POSITION_STEPS_PER_PX,
    centers_from_keys,
    compute_neighbor_keys,
    compute_neighbor_masks,
    keys_from_centers,
    read_spot_pixels,
)
from napari_dkan.spatial import polygons
from napari_dkan.spatial.coordinates import AffineTransform, fit_affine_to_landmarks, swap_xy
from napari_dkan.spatial.polygons import (
    combine_with_holes,
    ellipse_from_corners,
    has_too_many_crossings,
    polygons_from_shapes,
    to_valid_polygons,
    union_polygons,
)
from napari_dkan.spatial.tile_grid import TileGrid, cells_in_box, grid_from_region

# --- grids ----------------------------------------------------------------------------


def test_cells_whose_centre_lies_in_a_box() -> None:
    # pitch 10: centres at 5, 15, 25, ...; the lower edge belongs to the box, the upper does not
    assert cells_in_box((5, 5, 25, 15), 10, 100, 100).tolist() == [[0, 0], [1, 0]]
    assert cells_in_box((5.1, 4.9, 25.1, 15.1), 10, 100, 100).tolist() == [
        *([1, 0], [2, 0]),
        *([1, 1], [2, 1]),
    ]
    assert cells_in_box((-50, -50, 99, 99), 10, 25, 14).tolist() == [[0, 0], [1, 0]]
    assert cells_in_box((-50, -50, 99, 99), 10, 14, 26).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert cells_in_box((-9, -9, 2, 2), 1, 100, 100).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert cells_in_box((20, 30, 40, 40), 10, 100, 100).tolist() == [[2, 3], [3, 3]]
    assert cells_in_box((11, 1, 14, 9), 10, 100, 100).shape == (0, 2)
    assert cells_in_box((0, 0, 9, 9), 10, 100, 100).dtype == np.int64


def test_a_region_takes_the_cells_whose_centre_it_holds() -> None:
    triangle = Polygon([(0, 0), (40, 0), (0, 40)])
    grid = grid_from_region(triangle, 10, 7.0, 100, 100)
    assert (grid.pitch, grid.pitch_um) == (10, 7.0)
    assert grid.cells.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [0, 2]]
    assert grid_from_region(triangle, 10, 7.0, 14, 100).cells.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_region_without_a_centre_gets_the_cell_under_it() -> None:
    assert grid_from_region(box(31, 41, 32, 42), 20, 7.0, 100, 100).cells.tolist() == [[1, 2]]
    assert len(grid_from_region(Polygon(), 20, 7.0, 100, 100)) == 0
    # but only on the slide, whose upper edges do not belong to it
    for x, y, count in (
        (-2, 41, 0),
        (31, -2, 0),
        (-1, 41, 0),
        (31, 99, 0),
        (99, 41, 0),
        (-0.5, 1, 1),
    ):
        assert len(grid_from_region(box(x, y, x + 1, y + 1), 20, 7.0, 99.5, 99.5)) == count
    found = grid_from_region(box(-0.5, -0.5, 0.5, 0.5), 20, 7.0, 100, 100)
    assert found.cells.tolist() == [[0, 0]] and found.cells.dtype == np.int64


def test_a_grid_as_spots_and_as_a_raster() -> None:
    grid = TileGrid(10.0, 7.0, np.array([[3, 5], [5, 5], [4, 7]]))
    assert len(grid) == 3 and grid.shape == (3, 3) and grid.first_cell.tolist() == [3, 5]
    assert grid.centres.tolist() == [[35, 55], [55, 55], [45, 75]]
    spots = grid.to_spots(55.0)
    assert spots.names == ("3x5", "5x5", "4x7") and spots.xy.tolist() == grid.centres.tolist()
    assert spots.array_coords is not None and spots.array_coords.tolist() == grid.cells.tolist()
    assert (spots.diameter_um, spots.pitch_um) == (55.0, 7.0)
    assert grid.to_spots().diameter_um is None
    raster = grid.to_raster(np.array([1.5, 2.5, 3.5]))
    wanted = [[1.5, np.nan, 2.5], [np.nan] * 3, [np.nan, 3.5, np.nan]]
    np.testing.assert_array_equal(raster, wanted)
    assert raster.dtype == np.float32
    taken = grid.take(np.array([True, False, True]))
    assert taken.cells.tolist() == [[3, 5], [4, 7]]
    assert (taken.pitch, taken.pitch_um) == (10.0, 7.0)


# --- polygons -------------------------------------------------------------------------


def test_an_ellipse_touches_the_sides_of_its_box_in_the_middle() -> None:
    ellipse = ellipse_from_corners([[10, 20], [50, 20], [50, 30], [10, 30]], points=4)
    assert {(round(x, 6), round(y, 6)) for x, y in ellipse.exterior.coords} == {
        *((50.0, 25.0), (30.0, 30.0)),
        *((10.0, 25.0), (30.0, 20.0)),
    }
    fine = ellipse_from_corners([[10, 20], [50, 20], [50, 30], [10, 30]])
    assert len(fine.exterior.coords) == 65
    assert fine.area == pytest.approx(0.5 * 64 * math.sin(2 * math.pi / 64) * 20 * 5)


BOW = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])  # crosses itself: two triangles of 25


def test_shapes_are_made_valid_and_lines_are_dropped() -> None:
    valid = box(0, 0, 3, 3)
    assert to_valid_polygons(valid) is valid
    both = MultiPolygon([valid, box(5, 5, 6, 6)])
    assert to_valid_polygons(both) is both
    fixed = to_valid_polygons(BOW)
    assert fixed.is_valid and fixed.area == pytest.approx(50)
    spike = Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])  # with a line to (4, 9)
    assert to_valid_polygons(spike).equals(box(0, 0, 4, 4))
    mixed = to_valid_polygons(GeometryCollection([valid, LineString([(9, 9), (20, 20)])]))
    assert mixed.equals(valid) and mixed.geom_type == "Polygon"
    nothing = to_valid_polygons(LineString([(0, 0), (1, 1)]))
    assert nothing.is_empty and nothing.geom_type == "MultiPolygon"


def test_a_union_of_polygons() -> None:
    one = union_polygons([box(0, 0, 2, 2)])
    assert one.equals(box(0, 0, 2, 2))
    assert union_polygons([box(0, 0, 2, 2), box(1, 0, 3, 2), BOW]).area == pytest.approx(
        box(0, 0, 3, 2).union(to_valid_polygons(BOW)).area
    )
    assert union_polygons([Point(1, 1), Point(2, 2)]).is_empty


def test_holes_islands_and_twins() -> None:
    outer, hole, island = box(0, 0, 9, 9), box(1, 1, 8, 8), box(2, 2, 3, 3)
    assert combine_with_holes([island, outer, hole]).area == 81 - 49 + 1
    assert combine_with_holes([outer, hole, hole]).area == 81 - 49
    assert combine_with_holes([outer, box(5, 5, 12, 8)]).area == 81 + 3 * 3
    assert combine_with_holes([outer]).equals(outer)
    assert combine_with_holes([outer, Polygon()]).equals(outer)
    assert combine_with_holes([outer, outer]).equals(outer)
    assert combine_with_holes([]).is_empty and combine_with_holes([]).geom_type == "MultiPolygon"
    two = combine_with_holes([outer, hole, box(20, 0, 29, 9), box(21, 1, 22, 2)])
    assert two.area == 81 - 49 + 81 - 1


def test_drawn_shapes_that_have_an_area() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    kinds = ["rectangle", "polygon", "polygon", "ellipse", "line", "path"]
    drawn = [square, square[:3] + 10, square[:2], square + 30, square[:2], square]
    shapes = polygons_from_shapes(kinds, drawn)
    assert [round(s.area, 1) for s in shapes] == [16, 8, 12.5]
    assert combine_with_holes(shapes).area == pytest.approx(24 + shapes[2].area)
    with pytest.raises(ValueError, match="zip"):
        polygons_from_shapes(kinds, drawn[:2])


def comb(teeth: int) -> list[Polygon]:
    """Upright and level bars that all cross each other: 4 teeth^2 crossings."""
    bars = [box(4 * i, -1, 4 * i + 1, 4 * teeth) for i in range(teeth)]
    return bars + [box(-1, 4 * i, 4 * teeth, 4 * i + 1) for i in range(teeth)]


def test_outlines_that_cross_too_often_are_found(monkeypatch) -> None:
    shapes = comb(300)  # 2,400 edges; 360,000 crossings
    assert not has_too_many_crossings(shapes)
    pairs = sum(
        shapely.STRtree(edges).query(edges).shape[1]
        for edges in [shapely.linestrings(edge_list(shapes))]
    )
    monkeypatch.setattr(polygons, "MAX_CROSSINGS", pairs)
    assert not has_too_many_crossings(shapes)
    monkeypatch.setattr(polygons, "MAX_CROSSINGS", pairs - 1)
    assert has_too_many_crossings(shapes)
    monkeypatch.setattr(polygons, "PAIRS_PER_QUERY", 24_000)  # ten edges at a time
    assert has_too_many_crossings(shapes)
    # few edges are not looked at
    monkeypatch.setattr(polygons, "MAX_UNCHECKED_EDGES", 2400)
    assert not has_too_many_crossings(shapes)
    monkeypatch.setattr(polygons, "MAX_UNCHECKED_EDGES", 2399)
    assert has_too_many_crossings(shapes)


def edge_list(shapes: list[Polygon]) -> list[list[tuple[float, float]]]:
    rings = [list(s.exterior.coords) for s in shapes]
    return [[a, b] for ring in rings for a, b in pairwise(ring)]


def test_a_sample_of_the_edges_tells_how_often_all_cross(monkeypatch) -> None:
    shapes = comb(300)
    monkeypatch.setattr(polygons, "EDGE_SAMPLE_SIZE", 600)
    for limit, many in ((330_000, True), (420_000, False)):
        monkeypatch.setattr(polygons, "MAX_CROSSINGS", limit * 2)
        assert has_too_many_crossings(shapes) == many


# --- patches --------------------------------------------------------------------------


def test_positions_are_steps_of_a_pixel_and_halves_go_up() -> None:
    assert POSITION_STEPS_PER_PX == 4096
    step = 1 / 4096
    xy = np.array([[0.0, 1.0], [0.5 * step, 1.5 * step], [0.49 * step, -0.49 * step]])
    assert keys_from_centers(xy).tolist() == [[0, 4096], [1, 2], [0, 0]]
    dusty = np.array([[0.5 * step * (1 - 1e-9), -0.5 * step - 1e-9 * step]])
    assert keys_from_centers(dusty).tolist() == [[1, 0]]
    assert keys_from_centers(xy).dtype == np.int64
    assert centers_from_keys(np.array([[4096, -2048]])).tolist() == [[1.0, -0.5]]


def test_neighbours_of_a_spot_row_by_row() -> None:
    keys = compute_neighbor_keys(np.array([[100.0, 200.0], [0.0, 0.0]]), 10.0, 3)
    assert keys.shape == (2, 9, 2)
    wanted = [[x, y] for y in (190, 200, 210) for x in (90, 100, 110)]
    assert (keys[0] / 4096).tolist() == wanted
    assert (keys[1, 0] / 4096).tolist() == [-10, -10]
    assert (compute_neighbor_keys(np.array([[0.0, 0.0]]), 7.0, 5)[0, 0] / 4096).tolist() == [
        -14,
        -14,
    ]


class Gradient:
    """A slide whose pixel holds where it lies; remembers what was read of it."""

    width, height = 100, 60

    def __init__(self) -> None:
        self.reads: list[tuple[float, float, float, int]] = []

    def read_patch(self, x, y, side, px, on_resize=None) -> np.ndarray:
        self.reads.append((x, y, side, px))
        y, x = np.mgrid[:px, :px]
        return np.stack([x, y, np.full_like(x, len(self.reads))], axis=2).astype(np.uint8)


def test_neighbours_that_leave_the_slide_are_masked() -> None:
    # patches of 10 px: 5, 15, 25 lie on the slide, and edges that touch it do too
    xy = np.array([[15.0, 15.0], [14.9, 15.0], [85.0, 45.0], [85.1, 45.1], [-50.0, 900.0]])
    mask = compute_neighbor_masks(Gradient(), xy, 10.0, 3)
    left, corner = [False, True, True], [True, True, False]
    assert mask.tolist() == [
        [True] * 9,
        left * 3,
        [True] * 9,
        corner * 2 + [False] * 3,
        [False] * 4 + [True] + [False] * 4,
    ]
    wide = compute_neighbor_masks(Gradient(), np.array([[25.0, 15.0]]), 10.0, 5)[0].reshape(5, 5)
    assert wide.all(axis=1).tolist() == [False, True, True, True, True]


def test_a_window_is_read_once_and_cut_into_tiles() -> None:
    slide = Gradient()
    pixels = read_spot_pixels(slide, 50.0, 15.0, 10.0, 3, 4, 4)
    assert slide.reads == [(50.0, 15.0, 30.0, 12)]
    assert pixels.tiles.shape == (9, 4, 4, 3) and pixels.mask.tolist() == [True] * 9
    corners = [tile[0, 0, :2].tolist() for tile in pixels.tiles]
    assert corners == [[x, y] for y in (0, 4, 8) for x in (0, 4, 8)]
    assert pixels.tiles[0, 1, 3, :2].tolist() == [3, 1]
    assert np.array_equal(pixels.target, pixels.tiles[4])


def test_a_target_of_another_size_is_read_by_itself() -> None:
    slide = Gradient()
    pixels = read_spot_pixels(slide, 50.0, 10.0, 10.0, 5, 8, 4)
    assert slide.reads == [(50.0, 10.0, 50.0, 20), (50.0, 10.0, 10.0, 8)]
    assert pixels.target.shape == (8, 8, 3) and (pixels.target[..., 2] == 2).all()
    assert pixels.mask.reshape(5, 5).all(axis=1).tolist() == [False, False, True, True, True]


# --- landmarks ------------------------------------------------------------------------


def test_swapping_the_last_axis() -> None:
    assert swap_xy([[1, 2], [3, 4]]).tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert swap_xy((5, 6)).tolist() == [6.0, 5.0] and swap_xy((5, 6)).dtype == np.float64
    given = np.zeros((2, 2))
    swap_xy(given)[0, 0] = 9
    assert not given.any()
    with pytest.raises(ValueError, match=r"two coordinates, not the shape \(2, 3\)"):
        swap_xy(np.zeros((2, 3)))


def test_an_affine_map_of_points() -> None:
    transform = AffineTransform(np.array([[0.0, -2.0, 5.0], [2.0, 0.0, 7.0]]))
    assert transform.apply([[1, 0], [0, 1]]).tolist() == [[5, 9], [3, 7]]
    assert transform.apply([3, 4]).tolist() == [[-3, 13]]
    assert transform.scale == pytest.approx(2) and transform.rotation_deg == pytest.approx(90)
    back = AffineTransform(np.array([[3.0, 3.0, 0.0], [-3.0, 3.0, 0.0]]))
    assert back.rotation_deg == pytest.approx(-45) and back.scale == pytest.approx(math.sqrt(18))


TRIANGLE = np.array([[0.0, 0.0], [400.0, 0.0], [0.0, 300.0]])


def test_three_landmarks_are_met_exactly() -> None:
    target = np.array([[10.0, 20.0], [10.0, 820.0], [-640.0, 20.0]])
    fitted = fit_affine_to_landmarks(TRIANGLE, target)
    wanted = [[0, -650 / 300, 10], [2, 0, 20]]
    np.testing.assert_allclose(fitted.matrix, wanted, atol=1e-9)


def test_more_landmarks_share_their_errors_by_least_squares() -> None:
    source = np.array([[0.0, 0], [100, 0], [100, 100], [0, 100]])
    error = np.array([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])  # no affine map makes any of it
    fitted = fit_affine_to_landmarks(source, source * 2 + [7, 9] + error)
    np.testing.assert_allclose(fitted.matrix, [[2, 0, 7], [0, 2, 9]], atol=1e-9)
    far = np.array([5e7, -3e7])
    fitted = fit_affine_to_landmarks(source + far, source)
    np.testing.assert_allclose(fitted.apply(source + far), source, atol=1e-6)


def test_landmarks_at_the_limits() -> None:
    def fit(linear, points=TRIANGLE):
        return fit_affine_to_landmarks(points, points @ np.array(linear, float).T)

    def refused(match: str, *args) -> None:
        with pytest.raises(SpotsError, match=match):
            fit(*args)

    assert fit([[1.49, 0], [0, 1]]).scale == pytest.approx(math.sqrt(1.49))
    refused(r"stretch the section 1\.5 times", [[1.51, 0], [0, 1]])
    refused(r"stretch the section 3\.0 times", [[0.5, 0], [0, 1.5]])
    assert fit([[0.0201, 0], [0, 0.0201]]).scale == pytest.approx(0.0201)
    refused(r"scale the section 0\.0199 times", [[0.0199, 0], [0, 0.0199]])
    assert fit([[49.9, 0], [0, 49.9]]).scale == pytest.approx(49.9)
    refused(r"scale the section 50\.1 times", [[50.1, 0], [0, 50.1]])
    refused("mirror", [[1, 0], [0, -1]])
    narrow = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 0.0], [50.0, 0.0]])
    for height, in_line in ((6.5, False), (4.5, True)):
        narrow[2, 1], narrow[3, 1] = height / 2, -height / 2  # thin over long is height / 100
        if in_line:
            refused("first image lie in one line", [[1, 0], [0, 1]], narrow)
        else:
            assert fit([[1, 0], [0, 1]], narrow).scale == pytest.approx(1)


def test_landmarks_that_are_no_pairs() -> None:
    for source, target, match in (
        (TRIANGLE, TRIANGLE[:2], "3 landmarks on one image but 2 on the other"),
        (TRIANGLE[:2], TRIANGLE[:2], "2 landmarks are too few"),
        (TRIANGLE, TRIANGLE * [1, np.nan], "no finite position"),
        (TRIANGLE + np.inf, TRIANGLE, "no finite position"),
        (TRIANGLE, TRIANGLE * [1, 0.01], "second image lie in one line"),
        (TRIANGLE * [0, 1], TRIANGLE, "first image lie in one line"),
    ):
        with pytest.raises(SpotsError, match=match):
            fit_affine_to_landmarks(source, target)
