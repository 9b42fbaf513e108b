"""An ensemble predicts the mean of its members with every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from napari_dkan.errors import CheckpointError
from napari_dkan.model import DKAN, Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.network.ensemble import Ensemble, combine_members


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint_file: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint_file)


@pytest.fixture(scope="module")
def ensemble(checkpoint: Checkpoint) -> Ensemble:
    features = checkpoint.network.gene_features
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        member = DKAN(checkpoint.network.config, features)
        member.label_mean.fill_(1.0)
        member.label_std.fill_(0.5)
        members.append(member.eval())
    network = combine_members(members)
    assert isinstance(network, Ensemble)
    return network


@pytest.fixture(scope="module")
def section(checkpoint: Checkpoint) -> dict[str, Tensor]:
    config, px = checkpoint.network.config, checkpoint.patch.px
    generator = torch.Generator().manual_seed(5)
    return {
        "patches": torch.randn(7, 3, px, px, generator=generator),
        "slide_features": torch.randn(7, config.dim, generator=generator),
        "positions": torch.stack([torch.arange(7) // 3, torch.arange(7) % 3], dim=1),
        "neighbor_features": torch.randn(7, config.grid**2, config.dim, generator=generator),
        "neighbor_mask": torch.ones(7, config.grid**2),
    }


def test_every_head_is_the_mean_of_the_members(ensemble: Ensemble, section) -> None:
    each = [member.predict(**section) for member in ensemble.member_networks]
    mean = {name: torch.stack([e[name] for e in each]).mean(dim=0) for name in each[0]}
    predicted = ensemble.predict(**section)
    for name, expected in mean.items():
        torch.testing.assert_close(predicted[name], expected)
    assert not torch.allclose(each[0]["final"], each[1]["final"], atol=1e-3)


def test_genes_decoded_alone_have_the_same_values(ensemble: Ensemble, section) -> None:
    whole = ensemble.predict(**section)["final"]
    with torch.no_grad():
        tokens = ensemble.encode_global(section["slide_features"], section["positions"])
        z = ensemble.fuse(
            section["patches"], section["neighbor_features"], section["neighbor_mask"], tokens
        ).z
        some = ensemble.decode(z, torch.tensor([2, 0]))
        # genes of the panel by their tokens, standardised
        standardised = ensemble.decode_gene_tokens(z, ensemble.encode_genes()[[2, 0]])
    torch.testing.assert_close(some, whole[:, [2, 0]])
    torch.testing.assert_close(standardised * 0.5 + 1.0, some)


def test_a_checkpoint_stores_all_members(
    checkpoint: Checkpoint, ensemble: Ensemble, section, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "e.safetensors", replace(checkpoint, network=ensemble))
    network = load_checkpoint(tmp_path / "e.safetensors").network
    assert isinstance(network, Ensemble) and network.config.members == 3
    expected = ensemble.predict(**section)["final"]
    torch.testing.assert_close(network.predict(**section)["final"], expected)


def test_members_of_other_shapes_are_refused(checkpoint: Checkpoint) -> None:
    network = checkpoint.network
    assert isinstance(network, DKAN)
    other = DKAN(replace(network.config, kernel=5), network.gene_features)
    with pytest.raises(CheckpointError, match="one shape"):
        combine_members([network, other])


def test_a_single_network_is_not_wrapped(checkpoint: Checkpoint) -> None:
    assert combine_members([checkpoint.network]) is checkpoint.network
