"""An imported published checkpoint predicts the same as the published implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_dkan.model import convert_published, load_checkpoint

if TYPE_CHECKING:
    from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint


FILES = ("official.ckpt", "genes.npy", "gene_features.pt")


@pytest.fixture(scope="module")
def imported(parity_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("parity") / "imported.safetensors"
    convert_published(*(parity_dir / f for f in FILES), out)
    return load_checkpoint(out)


@pytest.fixture(scope="module")
def inputs(parity_dir):
    with np.load(parity_dir / "inputs.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def expected(parity_dir):
    with np.load(parity_dir / "expected.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_every_output_agrees_in_any_row_order(imported: Checkpoint, inputs, expected, seed):
    rows = torch.arange(24)
    if seed is not None:
        rows = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    out = imported.network.predict(**{k: v[rows] for k, v in inputs.items()}, batch_size=7)
    assert set(out) == set(expected) == {"final", "fused", "target", "neighbor", "global"}
    for name, values in out.items():
        assert (values - expected[name][rows]).abs().max() < 1e-5, name


def test_the_parts_of_the_network_give_the_same_as_predict(imported: Checkpoint, inputs, expected):
    network = imported.network
    some, genes = torch.tensor([20, 3, 11]), torch.tensor([7, 0, 3])
    with torch.inference_mode():
        tokens = network.encode_global(inputs["slide_features"], inputs["positions"])[some]
        given = (inputs[k][some] for k in ("patches", "neighbor_features", "neighbor_mask"))
        fused = network.fuse(*given, tokens)
        final = network.decode(fused.z, genes)
        auxiliary = network.predict_auxiliary(fused, tokens)
    assert (final - expected["final"][some][:, genes]).abs().max() < 1e-5
    for name, values in auxiliary.items():
        assert (values - expected[name][some]).abs().max() < 1e-5, name


def test_half_storage_predicts_nearly_the_same(
    imported: Checkpoint, inputs, expected, parity_dir, tmp_path
):
    half = convert_published(
        *(parity_dir / f for f in FILES), tmp_path / "h.safetensors", half=True
    )
    assert half.path.stat().st_size < 0.6 * imported.path.stat().st_size
    out = load_checkpoint(half.path).network.predict(**inputs)
    assert (out["final"] - expected["final"]).abs().max() < 0.01


def test_the_panel_and_patch_are_read_and_the_unknown_encoder_is_refused(imported: Checkpoint):
    from napari_dkan.errors import EncoderError

    assert imported.panel.symbols == tuple(f"GENE{i}" for i in range(10))
    assert imported.patch.px == 224 and imported.patch.mpp == pytest.approx(0.688)
    with pytest.raises(EncoderError, match="does not say which encoder"):
        imported.build_tile_encoder()
