"""Encoder weights that a checkpoint does not contain: download or local file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_dkan.viewer.widgets import paced_progress_bar

from ..fake_hub import TINY, only_hub, tiny_weights

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.encoder_weights_box import EncoderWeightsBox
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with only_hub(monkeypatch, tmp_path, tiny_weights()) as served:
        yield served


@pytest.fixture
def without_weights(tiny_checkpoint_file, tmp_path):
    """The small checkpoint on features of the hub's encoder."""
    import torch

    from napari_dkan.model import DKAN, DKANConfig, load_checkpoint, save_checkpoint

    whole = load_checkpoint(tiny_checkpoint_file)
    config = replace(whole.network.config, dim=TINY.spec.dimension)
    assert isinstance(config, DKANConfig)
    torch.manual_seed(2)
    network = DKAN(config, torch.randn(config.genes, config.text_dim)).eval()
    file = tmp_path / "needs-an-encoder.safetensors"
    changed = {"network": network, "encoder": TINY.spec, "encoder_tensors": None}
    save_checkpoint(file, replace(whole, **changed))
    return file


@pytest.fixture
def box(hub, panel: PredictWidget, without_weights, until) -> EncoderWeightsBox:
    """The panel with that checkpoint: the weights are missing, and nothing was asked for."""
    panel.session.change_settings(prefetch=False)
    panel.model_box.load(without_weights)
    made = panel.model_box.encoder_weights_box
    until(lambda: panel.session.checkpoint.encoder == TINY.spec and made.isVisibleTo(panel))
    assert not hub.ranges
    return made


def test_nothing_is_downloaded_before_a_click(
    hub, box: EncoderWeightsBox, panel: PredictWidget, until, monkeypatch
):
    monkeypatch.setattr(paced_progress_bar, "PROGRESS_SECONDS", 0.0)  # each step is seen
    text = box.status_label.text()
    for words in ("Tiny", "3 MB", "lab/Tiny", "licence MIT", "free to download"):
        assert words in text
    assert box.download_button.text() == "Download 3 MB" and not box.progress_bar.isVisibleTo(box)
    assert not hub.ranges
    seen = []
    box.progress_bar.valueChanged.connect(seen.append)
    box.download_button.click()
    assert box.cancel_button.isVisibleTo(box) and not box.download_button.isVisibleTo(box)
    until(lambda: not box.busy)
    assert len(seen) > 2 and max(seen) == 1000 and len(hub.ranges) == 1
    assert not box.isVisibleTo(panel)
    assert panel.session.checkpoint.build_tile_encoder().spec.sha256


def test_cancelled_download_can_be_resumed(hub, box: EncoderWeightsBox, until, monkeypatch):
    from napari_dkan.model.encoders import weights_download as download

    gate = []
    write = download._write_chunk

    def slow(file, piece):
        write(file, piece)
        gate.append(len(piece))
        if len(gate) == 1:
            until_cancelled()

    def until_cancelled():
        import time

        for _ in range(200):
            if not box.busy:
                return
            time.sleep(0.05)

    monkeypatch.setattr(download, "_write_chunk", slow)
    box.download_button.click()
    until(lambda: bool(gate))
    box.cancel_button.click()
    assert not box.busy and box.download_button.isVisibleTo(box)
    assert box.wait()
    box.download_button.click()
    until(lambda: not box.busy)
    assert len(hub.ranges) == 2 and hub.ranges[1].startswith("bytes=")


def test_gated_encoder_states_what_to_do(hub, box: EncoderWeightsBox, until):
    hub.gated.add("lab/Tiny")
    box.download_button.click()
    until(lambda: not box.busy)
    assert "accept its licence" in box.status_label.text() and box.download_button.isVisibleTo(box)


def test_local_file_is_checked_before_use(
    hub, box: EncoderWeightsBox, panel: PredictWidget, until, tmp_path
):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(tiny_weights()[:2000])
    box.use_local_file(wrong)
    until(lambda: not box.busy)
    assert "wrong.safetensors" in box.status_label.text()
    assert panel.session.settings.encoder_weights is None
    right = tmp_path / "right.safetensors"
    right.write_bytes(tiny_weights())
    box.use_local_file(right)
    until(lambda: not box.busy)
    assert panel.session.settings.encoder_weights == right
    assert not box.isVisibleTo(panel) and not hub.ranges


def test_box_is_hidden_for_a_checkpoint_with_weights(hub, panel: PredictWidget):
    assert not panel.model_box.encoder_weights_box.isVisibleTo(panel)
