"""Checkpoints of other methods than DKAN in the window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.methods.method_configs import BleepConfig, TriplexConfig
from napari_dkan.model.methods.method_networks import create_network
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


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
