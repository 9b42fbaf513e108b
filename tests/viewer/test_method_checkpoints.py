"""Checkpoints of other methods than DKAN in the window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.export.result_reader import load_result
from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.methods.method_configs import BleepConfig, StemConfig, TriplexConfig
from napari_dkan.model.methods.method_networks import create_network
from napari_dkan.model.network.ensemble import combine_members
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
from napari_dkan.viewer.panels.results.save_result import save_snapshot, snapshot_result
from napari_dkan.viewer.session.slide_layer import slide_to_world

from .drop_files import drop
from .prediction_steps import draw, everything, finish


@pytest.fixture
def method_files(tiny_checkpoint_file: Path, tmp_path: Path) -> list[Path]:
    """Small random networks of two methods, around the panel and encoder of the small DKAN."""
    tiny: Checkpoint = load_checkpoint(tiny_checkpoint_file)
    shape = {"genes": len(tiny.panel), "dim": tiny.network.config.dim}
    torch.manual_seed(7)
    files = []
    for config in (
        TriplexConfig(**shape, trunk="none", trunk_dim=shape["dim"]),
        BleepConfig(**shape, bank=9, top_k=2),
    ):
        network = create_network(config).eval()
        if isinstance(config, BleepConfig):
            labels = torch.randn(9, shape["genes"])
            network.fill_bank([labels], [torch.stack([torch.arange(9)] * 2, dim=1)])
        file = tmp_path / f"{config.method}.safetensors"
        save_checkpoint(file, replace(tiny, network=network, sha256="", path=None))
        files.append(file)
    return files


def test_models_are_listed_by_method_and_predict(
    panel: PredictWidget, middle, until, method_files: list[Path]
) -> None:
    box, session = panel.model_box, panel.session
    assert "TRIPLEX" not in box.summary_label.text()
    spots = []
    for file in method_files:
        box.load(file)
        until(lambda file=file: session.checkpoint.path == file and not panel.prefetcher.busy)
        panel.click_predictor.predict_at(*middle)
        until(lambda: session.spot is not None)
        spots.append(np.asarray(session.spot.values))
        assert box.checkpoint_combo.currentText() == file.name
    assert box.summary_label.text().startswith("BLEEP, 6 genes")
    assert all(np.isfinite(values).all() for values in spots)
    assert not np.allclose(*spots)

    combo = box.checkpoint_combo
    rows = [combo.itemText(i) for i in range(combo.count())]
    assert rows == [
        *("DKAN", "tiny (bundled)", "TRIPLEX", "triplex.safetensors"),
        *("BLEEP", "bleep.safetensors", "Browse..."),
    ]
    enabled = [combo.model().item(i).isEnabled() for i in range(combo.count())]
    assert enabled == [row not in ("DKAN", "TRIPLEX", "BLEEP") for row in rows]


def test_dropped_checkpoint_is_loaded_and_files_beside_it_are_opened(
    shown: PredictWidget, until, method_files: list[Path], tiny_slide_file: Path
) -> None:
    session, viewer = shown.session, shown.session.viewer
    slides = len(session.slides)
    drop(viewer, method_files[0], remembered=False)
    until(lambda: session.checkpoint.path == method_files[0])
    drop(viewer, method_files[1], tiny_slide_file, remembered=False)
    until(lambda: session.checkpoint.path == method_files[1])
    assert len(session.slides) == slides + 1
    drop(viewer, *method_files, remembered=False)
    assert all(file.name in session.message.text for file in method_files)
    assert session.checkpoint.path == method_files[1] and not shown.model_box.busy


def test_spread_veils_the_map_and_is_saved(
    panel: PredictWidget, middle, until, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    tiny = load_checkpoint(tiny_checkpoint_file)
    box, gene_box, session = panel.model_box, panel.gene_box, panel.session
    assert not gene_box.spread_checkbox.isVisibleTo(gene_box.display_box)  # a single network
    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    assert not panel.spot_box.gene_bars.whiskers

    torch.manual_seed(8)
    config = StemConfig(len(tiny.panel), dim=tiny.network.config.dim, tokens=2)
    members = [create_network(config).eval() for _ in range(2)]
    for parameter in (p for m in members for p in m.parameters()):  # those that start at zero too
        torch.nn.init.normal_(parameter, std=0.2)
    network = combine_members(members)
    file = tmp_path / "stem.safetensors"
    save_checkpoint(file, replace(tiny, network=network, sha256="", path=None))
    box.load(file)
    until(lambda: session.checkpoint.path == file and not panel.prefetcher.busy)
    assert gene_box.spread_checkbox.isVisibleTo(gene_box.display_box)
    draw(panel, everything(panel))
    panel.target_box.predict_button.click()
    finish(panel, until)
    (overlay,) = [o for o in session.overlays if o.prediction.target.grid is not None]
    values, spread = network.decode_with_spread(torch.from_numpy(overlay.prediction.tokens))
    np.testing.assert_allclose(overlay.prediction.values, values.detach(), atol=1e-5)

    gene_box.spread_checkbox.click()
    until(lambda: panel.spread_map.layer is not None and not panel.spread_map.busy)
    row = overlay.prediction.panel.row(session.gene)
    grid = overlay.prediction.target.grid
    expected = grid.to_raster(spread[:, row].detach().numpy())
    np.testing.assert_allclose(panel.spread_map.layer.tiles, expected, atol=1e-5)
    layers = list(session.viewer.layers)
    assert layers.index(panel.spread_map.layer) > layers.index(overlay.layer)
    name = panel.spread_map.layer.name
    session.step_gene(1)
    until(lambda: panel.spread_map.layer is not None and panel.spread_map.layer.name != name)

    # a click on the map has whiskers, in standard deviations of the map as the bars
    x, y = slide_to_world(np.array([middle]), session.slide)[0]
    assert panel.click_predictor._show_map_tile((y, x))
    until(lambda: session.spot is not None and bool(panel.spot_box.gene_bars.whiskers))
    spot = session.spot
    place = np.flatnonzero((overlay.prediction.tokens == spot.tokens[-1]).all(axis=1))[0]
    np.testing.assert_allclose(spot.spread[-1], spread[place].detach(), atol=1e-5)
    assert "samples of 2 networks" in panel.spot_box.units_label.text()

    result = tmp_path / "map.h5ad"
    for _ in save_snapshot(result, snapshot_result(session, overlay, None)):
        pass
    saved = load_result(result).prediction
    np.testing.assert_allclose(saved.spread, spread.detach(), atol=1e-5)
    assert "samples" in saved.provenance["spread"]
    session.viewer.layers.remove(panel.spread_map.layer)  # by the user: it is off
    assert not session.settings.show_spread and not gene_box.spread_checkbox.isChecked()
