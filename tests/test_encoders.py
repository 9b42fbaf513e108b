"""Tile encoders: any timm model, weights read as data, and clear errors if there are none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_dkan.errors import CheckpointError, EncoderError
from napari_dkan.model.encoders import build_encoder, resolve_encoder_spec
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.model.encoders.timm_encoder import TimmEncoder
from napari_dkan.model.network.branch_encoders import TargetTrunk

TINY = "test_vit"


@pytest.fixture(scope="module")
def tiles():
    return torch.randint(0, 256, (3, 3, 160, 160), dtype=torch.uint8)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return timm.create_model(TINY).eval()  # with its head, as published weights have


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Tests never ask the hub, and its cache is empty."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_features_equal_timm_s_pooled_output(classifier, tiles, tmp_path):
    spec = resolve_encoder_spec(TINY)
    assert (spec.dimension, spec.px, spec.mean) == (64, 160, (0.5, 0.5, 0.5))
    x = (tiles.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = classifier.forward_head(classifier.forward_features(x), pre_logits=True)
    save_file(classifier.state_dict(), tmp_path / "w.safetensors")
    torch.save(classifier.state_dict(), tmp_path / "w.pth")
    wrapped = {f"module.{k}": v for k, v in classifier.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "w.bin")
    for name in ("w.safetensors", "w.pth", "w.bin"):
        encoder = build_encoder(spec, weights=tmp_path / name)
        assert torch.allclose(encoder(tiles), expected, atol=1e-5), name
        assert not any(p.requires_grad for p in encoder.parameters())
    again = build_encoder(spec, encoder.tensors())  # as bundled in a checkpoint
    assert torch.equal(again(tiles), encoder(tiles))


def test_tiles_of_another_size_are_refused(tiles):
    encoder = TimmEncoder.create_untrained(resolve_encoder_spec(TINY))
    with pytest.raises(EncoderError, match=r"\(B, 3, 160, 160\)"):
        encoder(tiles[..., :100])


def test_known_encoders_are_built_as_published():
    """A wrong argument changes the number of parameters."""
    millions = {"UNI": 303.4, "UNI2-h": 681.4, "H-optimus-0": 1134.8, "Virchow2": 631.2}
    with torch.device("meta"):
        for name, size in millions.items():
            encoder = TimmEncoder.create_untrained(resolve_encoder_spec(name))
            assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(size, 1e-3)
        assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 2560)


def test_short_names_resolve_to_published_encoders():
    assert (
        resolve_encoder_spec("uni")
        == resolve_encoder_spec("hf-hub:MahmoodLab/UNI")
        == resolve_encoder_spec("hf_hub:MahmoodLab/UNI")
    )
    assert resolve_encoder_spec("uni").licence == "CC-BY-NC-ND-4.0"


# --- without weights ---------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_missing_weights_are_described_and_not_downloaded(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("the hub was asked"))
    with pytest.raises(
        EncoderError, match=r"UNI: 1.2 GB .*CC-BY-NC-ND.*gated.*`napari-dkan encoders get uni`"
    ):
        build_encoder(resolve_encoder_spec("uni"))
    with pytest.raises(EncoderError, match=f"encoders get {TINY}`, or give a local weights"):
        build_encoder(resolve_encoder_spec(TINY))


def test_a_hub_model_is_built_from_its_own_description(classifier, tiles, monkeypatch, tmp_path):
    """Any `hf-hub:` name: architecture, arguments and normalisation come from its config.json."""
    config = {
        "architecture": TINY,
        "model_args": {"img_size": 96},
        "pretrained_cfg": {"mean": [0.7, 0.6, 0.7], "std": [0.2] * 3, "input_size": [3, 96, 96]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(timm.create_model(TINY, img_size=96).state_dict(), tmp_path / "pytorch_model.bin")

    def stored(repository, filename, revision=None):
        assert repository == "lab/encoder"
        return str(tmp_path / filename) if (tmp_path / filename).exists() else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", stored)
    spec = resolve_encoder_spec("hf-hub:lab/encoder")
    assert (spec.px, spec.mean, spec.dimension) == (96, (0.7, 0.6, 0.7), 64)
    assert build_encoder(spec)(tiles[..., :96, :96]).shape == (3, 64)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "hf-hub:x/y"}))
    with pytest.raises(EncoderError, match="no tile encoder named"):
        resolve_encoder_spec("hf-hub:lab/encoder")


@pytest.mark.parametrize("name", ["nonsense", "local-dir:/", "hf-hub:../x", "https://x/y", "a b"])
def test_invalid_names_are_refused_and_no_address_is_followed(name):
    with pytest.raises(EncoderError, match="no tile encoder named"):
        resolve_encoder_spec(name)


# --- bad weights -------------------------------------------------------------------------


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_weights_file_never_runs(classifier, tmp_path):
    torch.save({"model": classifier.state_dict(), "x": Trap(tmp_path / "touched")}, tmp_path / "w")
    with pytest.raises(EncoderError, match="could run code"):
        build_encoder(resolve_encoder_spec(TINY), weights=tmp_path / "w")
    assert os.listdir(tmp_path) == ["w"]


def test_weights_of_another_model_are_refused(classifier, tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    save_file(timm.create_model(TINY, depth=9).state_dict(), tmp_path / "deeper.safetensors")
    lacking = {k: v for k, v in classifier.state_dict().items() if k != "cls_token"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, sentence in {
        "w.safetensors": f"does not hold weights of {TINY}",
        "deeper.safetensors": f"does not hold weights of {TINY}",
        "lacking.safetensors": f"does not hold weights of {TINY}",
        "text.pth": "not a PyTorch file",
        "list.pth": "does not hold a network's weights",
        "absent.pth": "No such file",
    }.items():
        with pytest.raises(EncoderError, match=sentence):
            build_encoder(resolve_encoder_spec(TINY), weights=tmp_path / name)
    other = timm.create_model("test_resnet", num_classes=0).state_dict()
    with pytest.raises(EncoderError, match="do not fit"):
        build_encoder(resolve_encoder_spec(TINY), other)
    with pytest.raises(EncoderError, match="gives 64 features, not the 65"):
        build_encoder(replace(resolve_encoder_spec(TINY), dimension=65), classifier.state_dict())
    with pytest.raises(EncoderError, match="cannot travel"):
        build_encoder(EncoderSpec("hf-hub:some/body"), {})


def test_a_trunk_starts_from_a_local_file(tmp_path):
    weights = timm.create_model("test_resnet").state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    trunk = TargetTrunk("test_resnet")
    trunk.load_pretrained(tmp_path / "w.safetensors")
    for name, tensor in trunk.net.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize(
    "change",
    [
        {"px": 0},
        {"mean": [1, 2]},
        {"std": [0, 1, 1]},
        {"mpp": "x"},
        {"name": ""},
        {"mean": 10**400},
    ],
)
def test_invalid_specs_are_refused(change):
    good = json.loads(json.dumps(resolve_encoder_spec("uni").to_json()))
    assert EncoderSpec.from_json(good) == resolve_encoder_spec("uni")
    with pytest.raises(CheckpointError):
        EncoderSpec.from_json(good | change)
