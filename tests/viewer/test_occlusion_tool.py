"""The occlusion map in a real viewer: it follows spot and gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dkan.viewer.tools.occlusion_tool import TILE_PX, make_occlusion_raster

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.predict.tool_boxes import OcclusionBox


@pytest.fixture
def box(panel: PredictWidget) -> OcclusionBox:
    return panel.occlusion_box


def click(panel: PredictWidget, box: OcclusionBox, until, x, y) -> None:
    before = panel.session.spot
    panel.click_predictor.predict_at(x, y)
    until(lambda: panel.session.spot is not before and not panel.click_predictor.busy)
    until(lambda: not box.explainer.busy)


def occlusion_layers(panel: PredictWidget) -> list:
    return [layer for layer in panel.session.viewer.layers if " here" in layer.name]


def test_map_follows_spot_and_gene_until_switched_off(
    panel: PredictWidget, box: OcclusionBox, middle, until
):
    session, explainer = panel.session, box.explainer
    explainer.set_active(True)
    assert not occlusion_layers(panel) and "Click" in box.legend_label.text()
    click(panel, box, until, *middle)
    layer = occlusion_layers(panel)[0]
    gene = session.gene
    assert layer.name == f"why {gene} here" and gene in box.legend_label.text()
    shown = session.spot.get_gene_values(gene)[-1]
    assert explainer.explanation.value == pytest.approx(shown, abs=1e-5)
    # around the spot, five patches wide
    low, high = layer.extent.world
    np.testing.assert_allclose((low + high)[-2:] / 2, [c * 0.7 for c in middle[::-1]], atol=1)
    np.testing.assert_allclose((high - low)[-2:], 5 * 112.0, atol=3)
    spots = session.overlays[-1].layer
    assert not spots.visible  # they would cover the tissue it is about

    before = layer.data.copy()
    session.step_gene(1)
    until(lambda: not explainer.busy)
    assert occlusion_layers(panel)[0].name == f"why {session.gene} here" != f"why {gene} here"
    assert not np.array_equal(before, occlusion_layers(panel)[0].data, equal_nan=True)

    before = layer.translate.copy()
    click(panel, box, until, middle[0] + 60, middle[1])
    assert len(occlusion_layers(panel)) == 1
    assert layer.translate[-1] - before[-1] == pytest.approx(60 * 0.7)

    box.checkbox.click()
    assert not explainer.active and not occlusion_layers(panel) and spots.visible


def test_removing_the_layer_or_the_slide_switches_it_off(
    panel: PredictWidget, box: OcclusionBox, middle, until
):
    session, explainer = panel.session, box.explainer
    click(panel, box, until, *middle)
    explainer.set_active(True)  # the spot clicked before it was switched on
    until(lambda: not explainer.busy)
    session.viewer.layers.remove(occlusion_layers(panel)[0])
    assert not explainer.active and not box.checkbox.isChecked()
    explainer.set_active(True)
    until(lambda: bool(occlusion_layers(panel)))
    session.viewer.layers.remove(session.slide.layer)
    assert not occlusion_layers(panel) and not explainer.has_spot


def test_raster_is_normalized_and_transparent_where_unknown():
    tiles, blocks = np.zeros((5, 5), np.float32), np.zeros((7, 7), np.float32)
    tiles[0, 0], tiles[2, 2], tiles[4, 4] = -0.2, np.nan, 0.1
    blocks[0, 6] = 0.003
    drawn = make_occlusion_raster(tiles, blocks)
    assert drawn.shape == (5 * TILE_PX, 5 * TILE_PX)
    assert np.nanmin(drawn) == -1 and np.isnan(drawn[0, 0])
    assert drawn[TILE_PX // 2, TILE_PX // 2] == pytest.approx(-0.45)  # inside its outline
    assert drawn[-5, -5] == pytest.approx(0.5)
    middle = drawn[2 * TILE_PX : 3 * TILE_PX, 2 * TILE_PX : 3 * TILE_PX]
    assert (middle[:8, 48:] == 1).all() and middle.sum() == 64
