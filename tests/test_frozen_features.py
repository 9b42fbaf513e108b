"""Features of a frozen encoder, stored by others or computed here, instead of the stain encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from napari_dkan.errors import SpotsError
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.training.data.frozen_features import (
    ComputedFeatureSource,
    FrozenEncoder,
    FrozenFeatures,
    StoredFeatureSource,
)
from napari_dkan.training.data.prepared_section import (
    encode_section,
    fit_section_encoder,
    select_genes,
)

from .tiny_sections import tiny_section


def test_stored_features_are_used_unchanged(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    target_features, neighbor_features = (
        torch.rand(5, 6, generator=generator),
        torch.rand(5, 25, 6, generator=generator),
    )
    torch.save(target_features, tmp_path / "own.pt")
    torch.save(neighbor_features, tmp_path / "near.pt")
    data = anndata.AnnData(np.ones((5, 2), np.float32))
    data.uns = {
        "section": "A1",
        "features": str(tmp_path / "own.pt"),
        "neighbor_features": str(tmp_path / "near.pt"),
    }
    frozen = StoredFeatureSource().select_features(data, np.array([0, 2, 4]))
    assert torch.equal(frozen.target_features, target_features[[0, 2, 4]]) and torch.equal(
        frozen.neighbor_features, neighbor_features[[0, 2, 4]]
    )
    assert frozen.spec.name == "external" and frozen.spec.dimension == 6
    with pytest.raises(SpotsError, match=r"own.pt has shape \(5, 6\); A1 has 4 spots"):
        StoredFeatureSource().select_features(data[:4], np.array([0]))
    torch.save({"a": 1}, tmp_path / "own.pt")
    with pytest.raises(SpotsError, match=r"own\.pt does not hold a tensor"):
        StoredFeatureSource().select_features(data, np.array([0]))


def test_frozen_features_replace_the_stain_encoder() -> None:
    class Means:
        spec, mixed_precision = EncoderSpec("test", dimension=3, px=8), False

        def __call__(self, tiles):
            return tiles.float().mean(dim=(2, 3))

    source = ComputedFeatureSource(FrozenEncoder(Means(), torch.device("cpu")))
    tiles = torch.randint(0, 255, (4, 25, 3, 8, 8), dtype=torch.uint8)
    for spot in tiles:
        source.add_tiles(spot)
    frozen = source.select_features(None, np.arange(4))
    torch.testing.assert_close(frozen.target_features, tiles[:, 12].float().mean(dim=(2, 3)))
    section = replace(tiny_section(0, spots=4), frozen_features=frozen)
    encoder = fit_section_encoder([section], 16, 154.0)
    assert encoder.spec.name == "test" and encoder.tensors() == {}
    assert torch.equal(encode_section(section, encoder).neighbor_features, frozen.neighbor_features)
    with pytest.raises(SpotsError, match="different encoders"):
        fit_section_encoder([section, tiny_section(1)], 16, 154.0)
    other = FrozenFeatures(frozen.spec, frozen.neighbor_features, frozen.target_features + 1)
    assert torch.equal(
        encode_section(replace(section, frozen_features=other), encoder).target_features,
        frozen.target_features + 1,
    )


def test_select_genes() -> None:
    section = tiny_section(0)
    (part,) = select_genes([section], [5, 1])
    assert torch.equal(part.labels, section.labels[:, [5, 1]])
