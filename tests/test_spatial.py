"""Grids, regions, coordinates: geometry that must hold for any input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from napari_dkan.errors import SpotsError
from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.spatial.polygons import (
    combine_with_holes,
    ellipse_from_corners,
    polygons_from_shapes,
)
from napari_dkan.spatial.region_files import read_regions
from napari_dkan.spatial.spots import Spots
from napari_dkan.spatial.tile_grid import TileGrid, grid_from_region

numbers = st.floats(-1e4, 1e4, allow_nan=False)
points = st.lists(st.tuples(numbers, numbers), max_size=20)


@given(points)
def test_swapping_twice_is_the_identity(xy):
    array = np.array(xy).reshape(-1, 2)
    assert np.array_equal(swap_xy(swap_xy(array)), array)
    if len(array):
        assert np.array_equal(swap_xy(array)[:, 0], array[:, 1])


boxes = st.tuples(numbers, numbers, st.floats(1, 5e3), st.floats(1, 5e3)).map(
    lambda b: box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes, st.floats(20, 500), st.integers(100, 8000), st.integers(100, 8000))
def test_every_cell_of_a_grid_lies_in_its_region_and_on_the_slide(region, pitch, width, height):
    grid = grid_from_region(region, pitch, 200.0, width, height)
    for x, y in grid.centres[:200]:
        assert 0 <= x < width + pitch and 0 <= y < height + pitch
    if len(grid) > 1:  # a single cell may be the one under a region smaller than a tile
        assert all(region.intersects(Point(c)) for c in grid.centres)
        assert (grid.centres < [width, height]).all()
    assert len(np.unique(grid.cells, axis=0)) == len(grid)


@given(boxes, st.floats(50, 500))
def test_a_grid_misses_no_cell(region, pitch):
    grid = grid_from_region(region, pitch, 200.0, 10_000, 10_000)
    inside = {tuple(c) for c in grid.cells}
    x0, y0, x1, y1 = region.bounds
    for column in range(int(x0 // pitch) - 1, int(x1 // pitch) + 2):
        for row in range(int(y0 // pitch) - 1, int(y1 // pitch) + 2):
            x, y = (column + 0.5) * pitch, (row + 0.5) * pitch
            wanted = x0 < x < x1 and y0 < y < y1 and 0 <= x < 10_000 and 0 <= y < 10_000
            assert not wanted or (column, row) in inside


def test_two_regions_share_the_cells_where_they_overlap():
    one = grid_from_region(box(0, 0, 1000, 1000), 130.0, 200.0, 5000, 5000)
    two = grid_from_region(box(500, 500, 1500, 1500), 130.0, 200.0, 5000, 5000)
    both = grid_from_region(box(500, 500, 1000, 1000), 130.0, 200.0, 5000, 5000)
    shared = {tuple(c) for c in one.cells} & {tuple(c) for c in two.cells}
    assert shared == {tuple(c) for c in both.cells} and shared


def test_a_region_smaller_than_a_tile_still_gets_one():
    grid = grid_from_region(box(310, 410, 315, 415), 200.0, 200.0, 5000, 5000)
    assert grid.cells.tolist() == [[1, 2]]


def test_raster_puts_values_in_their_place_and_leaves_gaps_empty():
    grid = TileGrid(100.0, 200.0, np.array([[3, 5], [5, 6]]))
    image = grid.to_raster(np.array([1.0, 2.0]))
    assert image.shape == (2, 3)
    assert image[0, 0] == 1 and image[1, 2] == 2
    assert np.isnan(image).sum() == 4
    assert grid.to_spots().names == ("3x5", "5x6")
    assert grid.centres[0].tolist() == [350, 550]


def test_a_shape_inside_another_is_a_hole_and_an_island_in_it_is_filled():
    region = combine_with_holes([box(0, 0, 100, 100), box(20, 20, 80, 80), box(40, 40, 60, 60)])
    assert region.area == 100**2 - 60**2 + 20**2
    assert not region.contains(Point(30, 30)) and region.contains(Point(50, 50))


@given(st.permutations([box(0, 0, 9, 9), box(1, 1, 4, 4), box(5, 5, 8, 8), box(20, 0, 30, 9)]))
def test_holes_do_not_depend_on_the_order_of_drawing(shapes):
    assert combine_with_holes(shapes).area == 81 - 9 - 9 + 90


def test_overlapping_shapes_are_joined_and_twins_do_not_cancel():
    assert combine_with_holes([box(0, 0, 10, 10), box(5, 0, 15, 10)]).area == 150
    assert combine_with_holes([box(0, 0, 10, 10), box(0, 0, 10, 10)]).area == 100


def test_drawn_shapes_of_every_kind():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]])
    bow = np.array([[20, 0], [30, 10], [30, 0], [20, 10]])  # crosses itself
    kinds = ["rectangle", "polygon", "ellipse", "line", "path"]
    region = combine_with_holes(
        polygons_from_shapes(kinds, [square, bow, square + 50, square[:2], square])
    )
    assert region.is_valid
    assert region.area == pytest.approx(100 + 50 + np.pi * 25, rel=0.01)
    assert ellipse_from_corners(square).area == pytest.approx(np.pi * 25, rel=0.01)


def test_geojson_of_qupath_with_a_hole(tmp_path):
    ring = Polygon([(0, 0), (100, 0), (100, 100), (0, 100)], [[(40, 40), (60, 40), (60, 60)]])
    feature = {
        "type": "Feature",
        "geometry": mapping(ring),
        "properties": {"objectType": "annotation"},
    }
    other = {"type": "Feature", "geometry": mapping(MultiPolygon([box(200, 0, 210, 10)]))}
    file = tmp_path / "regions.geojson"
    for document in (
        {"type": "FeatureCollection", "features": [feature, other]},
        [feature, other],
    ):
        file.write_text(json.dumps(document))
        assert read_regions(file).area == pytest.approx(100**2 - 200 + 100)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "{}",
        "[]",
        "3",
        '{"type": "FeatureCollection"}',
        "[" * 100_000,
        '{"type": "Polygon", "coordinates": "x"}',
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, null], [1, 1]]]}',
    ],
)
def test_a_file_that_is_no_geojson_is_refused_by_name(tmp_path, content):
    file = tmp_path / "odd.geojson"
    file.write_text(content)
    with pytest.raises(SpotsError, match=r"odd\.geojson"):
        read_regions(file)


def test_a_missing_geojson_is_named(tmp_path):
    with pytest.raises(SpotsError, match="no file"):
        read_regions(tmp_path / "gone.geojson")


def test_spots_check_themselves():
    spots = Spots(np.array([[1, 2], [3, 4]]), np.array([[0, 0], [0, 1]]), ("a", "b"), 100.0, 200.0)
    taken = spots.take(np.array([False, True]))
    assert taken.names == ("b",) and taken.xy.tolist() == [[3, 4]] and taken.pitch_um == 200
    with pytest.raises(SpotsError, match="finite"):
        Spots(np.array([[np.nan, 1]]))
    with pytest.raises(SpotsError, match="array coordinates"):
        Spots(np.zeros((2, 2)), np.zeros((1, 2)))
