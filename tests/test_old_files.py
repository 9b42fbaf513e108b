"""Files that version 0.1.0 wrote still open, with the same content.

The checkpoint holds small random weights. The result was predicted with it on a crop of 640 px of
section C3 of the HER2+ data (Andersson et al. 2021, CC BY 4.0). The expected numbers were computed
with 0.1.0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from napari_dkan.export.result_reader import is_saved_result, load_result
from napari_dkan.export.saved_result import SavedResult, SlideRecord, ViewSettings, save_result
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Gene
from napari_dkan.inference.target import TargetKind
from napari_dkan.model import (
    Checkpoint,
    PatchGeometry,
    describe_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from napari_dkan.model.checkpoint.checkpoint_header import read_checkpoint_header

DATA = Path(__file__).parent / "data"
SYMBOLS = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "MALAT1")
SHA256 = "3a6d5bc6e25fc106cc1cb2b1ef02ac6cd1bd03d7bb9934a8266b4c15983b912e"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(DATA / "checkpoint_0.1.0.safetensors")


@pytest.fixture(scope="module")
def result() -> SavedResult:
    return load_result(DATA / "result_0.1.0.h5ad")


def wave(*shape: int) -> Tensor:
    """Numbers that are the same with every version of torch."""
    return torch.sin(torch.arange(np.prod(shape), dtype=torch.float32) * 0.37).reshape(shape)


# --- checkpoint --------------------------------------------------------------------------


def test_the_card_and_the_panel_are_read(checkpoint: Checkpoint) -> None:
    assert checkpoint.sha256 == SHA256
    assert checkpoint.creator == "napari-dkan 0.1.0"
    assert checkpoint.title == "Random numbers for tests"
    assert checkpoint.card == {"title": "Random numbers for tests", "metrics": {}}
    assert checkpoint.panel.symbols == SYMBOLS
    name = "erb-b2 receptor tyrosine kinase 2"
    assert checkpoint.panel.genes[0] == Gene("ERBB2", "ENSG00000141736", name, ("HER2", "NEU"))
    assert checkpoint.label_scale == LabelScale()
    assert checkpoint.patch == PatchGeometry(56, 112.0)
    assert (checkpoint.spot_pitch_um, checkpoint.spot_diameter_um) == (140.0, 100.0)
    assert checkpoint.encoder.name == "stain-stats" and checkpoint.encoder.dimension == 16
    text = describe_checkpoint(checkpoint)
    assert "6: ERBB2, GATA3, CD74, COL1A1, KRT8, MALAT1" in text and SHA256 in text
    header = read_checkpoint_header(DATA / "checkpoint_0.1.0.safetensors")
    assert describe_checkpoint(header) == text


def test_predictions_are_the_same(checkpoint: Checkpoint) -> None:
    positions = torch.tensor([[0, 0], [0, 1], [1, 0]])
    inputs = wave(3, 3, 56, 56), wave(3, 16), positions, wave(3, 25, 16), torch.ones(3, 25)
    predicted = checkpoint.network.predict(*inputs)
    expected = {
        "final": [-0.723112, -0.014649, 1.144398],
        "fused": [0.176970, 1.194017, 1.510488],
        "target": [0.663692, 0.819867, 1.528990],
        "neighbor": [0.758156, 1.053872, 1.664184],
        "global": [1.494601, 0.745177, 1.547414],
    }
    assert predicted.keys() == expected.keys()
    for name, values in expected.items():
        assert predicted[name][0, :3].tolist() == pytest.approx(values, abs=1e-4), name


def test_the_bundled_encoder_computes_the_same_features(checkpoint: Checkpoint) -> None:
    tiles = (wave(2, 3, 56, 56) * 127 + 128).to(torch.uint8)
    features = checkpoint.build_tile_encoder()(tiles)
    assert features[0, :3].tolist() == pytest.approx([1.600502, 8.385086, 2.290261], abs=1e-3)
    assert features[1, :3].tolist() == pytest.approx([1.575027, 8.358159, 2.259186], abs=1e-3)


def test_a_checkpoint_is_saved_as_it_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Names and values of all tensors, and the description, do not change."""
    saved = save_checkpoint(tmp_path / "again.safetensors", checkpoint)
    with safe_open(checkpoint.path, "pt") as old, safe_open(saved.path, "pt") as new:
        names = set(old.keys())
        assert set(new.keys()) == names
        assert all(torch.equal(new.get_tensor(name), old.get_tensor(name)) for name in names)
        before, after = (json.loads(file.metadata()["napari_dkan"]) for file in (old, new))
    assert after == before


# --- result ------------------------------------------------------------------------------


def test_a_result_has_the_same_values(result: SavedResult) -> None:
    prediction, target = result.prediction, result.prediction.target
    assert is_saved_result(DATA / "result_0.1.0.h5ad")
    assert prediction.panel.symbols == SYMBOLS and prediction.label_scale == LabelScale()
    assert prediction.values.shape == (9, 6) and not prediction.failed_mask.any()
    first = [-0.6209514, 0.04880577, 1.2098837, 1.395505, 2.0359037, 2.7219281]
    last = [-0.2836352, 0.38983047, 1.543918, 1.7288644, 2.389917, 3.063783]
    np.testing.assert_allclose(prediction.values[[0, -1]], [first, last], rtol=1e-6)
    tokens = [0.28950912, -2.5617893, 0.48059455, 0.9884206]
    np.testing.assert_allclose(prediction.tokens[0, :4], tokens, rtol=1e-6)
    features = [1.0, -1.5503223, 0.0, 0.01084184, 1.3979075, -0.0649223, 0.1791689, 0.3805807, 0.0]
    np.testing.assert_allclose(prediction.qc_features[0], features, rtol=1e-5)
    assert target.kind is TargetKind.GRID and target.grid is not None
    assert target.grid.pitch_um == 140.0
    assert target.grid.cells.tolist() == [[x, y] for y in range(3) for x in range(3)]
    np.testing.assert_allclose(target.spots.xy[4], 1.5 * 140.0 / 0.688)


def test_a_result_has_the_same_record(result: SavedResult) -> None:
    fingerprint = "990690fc319dcbdc9197895b495fa171dd627e68683315b46589ad28af4b47de"
    assert result.slide_record == SlideRecord(
        "crop", "/slides/crop.jpg", fingerprint, 640, 640, 0.688, "entered by hand", "", None
    )
    assert result.prediction.provenance == {
        "kind": "predicted",
        "version": "0.1.0",
        "created": "2026-11-29T11:26:13+00:00",
        "checkpoint": "Random numbers for tests",
        "checkpoint_sha256": SHA256,
        "label_scale": "log10(1 + counts per 10k of panel), 3x3 mean",
        "encoder": "stain-stats",
        "encoder_revision": "1",
        "encoder_sha256": "",
        "stain": "none",
        "slide": "crop.jpg",
        "slide_fingerprint": fingerprint,
        "slide_colours": "as stored",
        "mpp": 0.688,
        "mpp_origin": "entered by hand",
        "patch_um": 112.0,
        "pitch_um": 140.0,
        "where": "grid",
        "device": "cpu",
        "parameters": '{"icc": false, "mpp": 0.688, "pitch": "training", "tissue_only": true}',
    }
    assert result.card == {"title": "Random numbers for tests", "metrics": {}}
    assert result.versions["napari-dkan"] == "0.1.0"


def test_a_result_has_the_same_view(result: SavedResult) -> None:
    assert result.view_settings == ViewSettings(
        "GATA3", ("ERBB2", "KRT8"), (0.25, 1.5), "viridis", 0.5, False, (320.5, 300.0), 0.75
    )
    assert result.regions is None
    assert result.overview is not None and result.overview.rgb.shape == (640, 640, 3)
    reliability = result.reliability
    assert reliability is not None
    np.testing.assert_allclose(reliability.score, np.linspace(0.05, 0.85, 9), rtol=1e-6)
    assert reliability.unreliable.tolist() == [True] + [False] * 8
    assert reliability.reasons(0) == ("out of focus", "little tissue")
    assert reliability.reasons(1) == ()


def test_a_result_is_saved_as_it_was(result: SavedResult, tmp_path: Path) -> None:
    again = load_result(save_result(tmp_path / "again.h5ad", result))
    assert np.array_equal(again.prediction.values, result.prediction.values)
    assert again.view_settings == result.view_settings
    assert again.prediction.provenance == result.prediction.provenance
    assert again.versions == result.versions
