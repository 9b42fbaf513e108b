"""One gene on one slide is one map: tiles are drawn once, and saved together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest
from shapely.geometry import Polygon

from napari_dkan.inference.target import target_from_region
from napari_dkan.viewer.session.viewer_settings import TargetMode

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def predict_ring(panel: PredictWidget, until, ring):
    layer = draw(panel)
    layer.data = []
    draw(panel, ring)
    panel.target_box.start_prediction()
    finish(panel, until)
    return panel.session.overlays[-1]


def grid_cells(grid) -> list[tuple[int, int]]:
    return [(x, y) for x, y in grid.cells.tolist()]


def cells(overlay) -> set[tuple[int, int]]:
    """The cells of the predicted tiles of a map."""
    prediction = overlay.prediction
    return set(grid_cells(prediction.target.grid.take(prediction.predicted_mask)))


def drawn_tiles(overlay) -> np.ndarray:
    return np.isfinite(overlay.layer.tiles)


@pytest.fixture
def two_rings(middle):
    x, y = middle
    return square(x - 250, y, 420), square(x + 250, y, 420)


def test_a_second_region_goes_into_the_map_of_the_first(
    panel: PredictWidget, until, two_rings, tmp_path
):
    first = predict_ring(panel, until, two_rings[0])
    before, values = cells(first), first.prediction.values.copy()
    first.layer.visible = False
    second = predict_ring(panel, until, two_rings[1])
    assert panel.session.overlays == [second]
    assert second.layer is first.layer and second.layer.visible  # with its controls
    grid = second.prediction.target.grid
    row = len(values)  # the first new tile is where its grid has it
    world = tuple(grid.centres[row][::-1] * panel.session.slide.mpp)
    assert second.row_at(world) == row and second.layer.extent.world[0][1] <= world[1]
    assert second.layer.name == f"{panel.session.gene} predicted"
    planned = set(grid_cells(panel.target_box.target.grid))
    assert planned - before and planned & before
    assert cells(second) == before | planned
    assert f"{len(planned)} tiles predicted" in panel.message_label.text()
    np.testing.assert_allclose(second.prediction.values[: len(values)], values, atol=1e-5)
    assert grid_cells(second.prediction.target.grid)[: len(values)] == grid_cells(
        first.prediction.target.grid
    )
    assert drawn_tiles(second).sum() == len(cells(second))

    file = tmp_path / "all.h5ad"
    panel.results.save_result(file)
    until(lambda: not panel.results.busy)
    assert anndata.read_h5ad(file).n_obs == len(cells(second))


def test_a_map_that_never_began_leaves_no_trace(panel: PredictWidget, two_rings):
    draw(panel, two_rings[0])
    before = list(panel.session.viewer.layers)
    panel.target_box.start_prediction()
    assert len(panel.session.viewer.layers) > len(before)  # made before the thread begins
    panel.target_box.cancel_button.click()
    assert panel.session.overlays == [] and list(panel.session.viewer.layers) == before


def test_a_cancelled_extension_keeps_the_map(panel: PredictWidget, until, two_rings):
    first = predict_ring(panel, until, two_rings[0])
    before = cells(first)
    layer = draw(panel)
    layer.data = []
    draw(panel, two_rings[1])
    panel.target_box.start_prediction()
    panel.target_box.cancel_button.click()
    until(panel.prediction_jobs.wait)
    (overlay,) = panel.session.overlays
    assert before <= cells(overlay)


def test_where_two_maps_overlap_the_finer_one_is_drawn(panel: PredictWidget, until):
    session = panel.session
    coarse = predict_ring(panel, until, everything(panel))
    slide, grid = session.slide, coarse.prediction.target.grid
    x, y = coarse.prediction.target.spots.xy.mean(axis=0)
    size = slide.slide.width, slide.slide.height
    region = Polygon(square(x, y, 300))
    fine_target = target_from_region(region, grid.pitch_um / 2, slide.mpp, *size)
    panel.prediction_jobs.predict(fine_target)
    finish(panel, until)
    fine = session.overlays[-1]
    assert session.overlays == [coarse, fine]
    assert drawn_tiles(fine).sum() == len(fine_target)
    over = np.floor(fine_target.grid.centres / grid.pitch).astype(int).tolist()
    is_covered = np.array([list(c) in over for c in grid_cells(grid)])
    assert 0 < is_covered.sum() < len(grid)
    wanted = np.isfinite(grid.to_raster(np.where(is_covered, np.nan, 1.0)))
    np.testing.assert_array_equal(drawn_tiles(coarse), wanted)
    row = np.flatnonzero(is_covered)[0]
    world = tuple(grid.centres[row][::-1] * slide.mpp)
    assert coarse.value_at(world) is None and fine.value_at(world) is not None

    fine.layer.visible = False  # what is hidden leaves no hole in the other map
    assert drawn_tiles(coarse).sum() == len(grid)
    fine.layer.visible = True
    np.testing.assert_array_equal(drawn_tiles(coarse), wanted)

    session.viewer.layers.remove(fine.layer)
    assert drawn_tiles(coarse).sum() == len(grid)


def test_other_pixel_sizes_and_checkpoints_get_maps_of_their_own(
    panel: PredictWidget, until, two_rings, rival_file
):
    first = predict_ring(panel, until, two_rings[0])
    panel.model_box.load(rival_file)
    until(lambda: panel.session.checkpoint.path == rival_file)
    second = predict_ring(panel, until, two_rings[0])
    assert panel.session.overlays == [first, second]
    assert not np.allclose(first.prediction.values, second.prediction.values)


def test_the_tissue_takes_the_region_in(panel: PredictWidget, until, two_rings):
    region = predict_ring(panel, until, two_rings[0])
    before = cells(region)
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    panel.target_box.update_plan()
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = panel.session.overlays
    assert before <= cells(overlay)
    assert set(grid_cells(panel.target_box.target.grid)) <= cells(overlay)
