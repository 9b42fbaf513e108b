"""BG-TRIPLEX: what its maps find, and that it is TRIPLEX where they are blank."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from napari_dkan.errors import CheckpointError
from napari_dkan.model import load_checkpoint, save_checkpoint
from napari_dkan.model.encoders import resolve_encoder_spec
from napari_dkan.model.encoders.combined_encoder import (
    EncoderParts,
    combine_specs,
    find_stain_features,
    stain_part,
)
from napari_dkan.model.encoders.stain_encoder import (
    GRADIENT_ENERGY,
    NUCLEI,
    compute_tile_statistics,
    find_statistics,
)
from napari_dkan.model.methods.bg_triplex import compute_boundary_maps
from napari_dkan.model.methods.method_configs import BGTriplexConfig, TriplexConfig
from napari_dkan.model.methods.method_networks import create_network
from napari_dkan.model.network.network_interface import ExpressionNetwork, FusedTokens
from napari_dkan.model.stain_normalization import RUIFROK_STAIN_VECTORS
from napari_dkan.training.data.frozen_features import FrozenFeatures
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.data.section_batches import make_section_batch, normalize_patches
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.train import train_on_sections

from .tiny_sections import PANEL, QUICK, tiny_section

SHAPE = {"genes": 12, "dim": 16, "grid": 3, "trunk": "none", "trunk_dim": 16, "features": 40}
COLUMNS = {"nuclei": (3, 4), "edges": (7, 8, 20)}
TRUNK = {"trunk": "test_efficientnet", "trunk_dim": 256}


def stain(haematoxylin: Tensor, eosin: Tensor) -> Tensor:
    """RGB (1, 3, h, w) of tissue with these amounts (h, w) of stain."""
    vectors = torch.tensor(RUIFROK_STAIN_VECTORS)[:2]
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    density = torch.einsum("shw,sc->chw", torch.stack([haematoxylin, eosin]), vectors)
    return (256 * torch.exp(-density) - 1).round().clamp(0, 255).to(torch.uint8)[None]


def draw_nucleus(x: int, y: int) -> Tensor:
    """A dark disk of haematoxylin in pale eosin, 56 px."""
    at = torch.arange(56)
    disk = (at - x) ** 2 + (at[:, None] - y) ** 2 <= 4
    return stain(0.1 + 0.8 * disk.float(), torch.full((56, 56), 0.3))


def test_maps_find_a_nucleus_and_an_edge() -> None:
    nuclei, _ = compute_boundary_maps(normalize_patches(draw_nucleus(34, 22)), 4)
    found = nuclei[0].amax(dim=1).reshape(4, 4)
    assert found[1, 2] > 0.1 and (nuclei[0, 6] > 0).all()
    found[1, 2] = 0
    assert not found.any()
    # twice as many pixels, as of the encoder of parts, show the same nucleus
    fine = draw_nucleus(34, 22).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(compute_boundary_maps(normalize_patches(fine), 4)[0], nuclei)
    # eosin that ends on a line is an edge in the two columns of cells beside it, and no nucleus
    eosin = torch.where(torch.arange(56) < 28, 0.6, 0.2).expand(56, 56)
    nuclei, edges = compute_boundary_maps(normalize_patches(stain(torch.zeros(56, 56), eosin)), 4)
    of_eosin = edges[0, :, 1].reshape(4, 4)
    assert not nuclei.any() and not edges[..., 0].any()
    assert (of_eosin[:, 1:3] > 0.1).all() and not of_eosin[:, [0, 3]].any()


def test_columns_of_nuclei_and_edges() -> None:
    flat, one = compute_tile_statistics(torch.cat([draw_nucleus(-9, -9), draw_nucleus(30, 27)]))
    none = math.log(1e-6)  # of a gradient of zero
    assert tuple((flat - none).abs().lt(0.01).nonzero().flatten()) == find_statistics(
        GRADIENT_ENERGY
    )
    nuclei = list(find_statistics(NUCLEI))
    assert len(nuclei) == 9 and flat[nuclei].abs().max() < 1e-6
    torch.testing.assert_close(one[nuclei[::3]], torch.full((3,), 1 / 44**2))  # one of 44 x 44 px
    other = resolve_encoder_spec("lcnet_035[1,2]@64")
    behind = find_stain_features(combine_specs([other, stain_part(56)]), NUCLEI)
    assert behind == tuple(other.dimension + c for c in nuclei)
    assert find_stain_features(other, NUCLEI) == ()


def make_pair(**shape: object) -> tuple[ExpressionNetwork, ExpressionNetwork]:
    """BG-TRIPLEX and TRIPLEX with the same shared weights, none of them at a special value."""
    torch.manual_seed(3)
    guided = create_network(BGTriplexConfig(**(SHAPE | COLUMNS | shape))).eval()
    for parameter in guided.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = create_network(TriplexConfig(**(SHAPE | shape))).eval()
    shared = plain.state_dict()
    plain.load_state_dict({n: t for n, t in guided.state_dict().items() if n in shared})
    return guided, plain


def make_inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(4)
    neighbors = torch.randn(5, 9, 40, generator=draw)
    neighbors[..., [*COLUMNS["nuclei"], *COLUMNS["edges"]]] = 0
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[:, 0] = False
    colours = torch.randint(0, 256, (5, 3, 1, 1), generator=draw).expand(5, 3, 112, 112)
    return {
        "patches": normalize_patches(colours),
        "neighbor_features": neighbors,
        "neighbor_mask": mask,
        "global_tokens": torch.randn(5, 16, generator=draw),
    }


@pytest.mark.parametrize("trunk", [{}, TRUNK], ids=["tile features", "trunk"])
@torch.no_grad()
def test_blank_guidance_gives_triplex(trunk: dict[str, object]) -> None:
    guided, plain = make_pair(**trunk)
    inputs = make_inputs()

    def assert_same(one: FusedTokens, other: FusedTokens, *, except_for: tuple[str, ...]) -> None:
        for name in ("z", "target_mean", "neighbor_mean"):
            is_same = torch.equal(getattr(one, name), getattr(other, name))
            assert is_same == (name not in except_for)

    blank = guided.fuse(**inputs)
    without = plain.fuse(**inputs)
    assert_same(blank, without, except_for=())
    assert torch.equal(guided.decode(blank.z), plain.decode(without.z))
    # nuclei in the pixels guide the spot
    patch = normalize_patches(draw_nucleus(34, 22).expand(5, 3, 56, 56))
    found = guided.fuse(**inputs | {"patches": patch})
    names = ("z", "target_mean")
    assert_same(found, plain.fuse(**inputs | {"patches": patch}), except_for=names)
    # and those of each tile on the slide the neighbours; the own tile's features are as they were
    for tile, of_kind, names in (
        (1, COLUMNS["nuclei"], ("z", "neighbor_mean")),
        (8, COLUMNS["edges"], ("z", "neighbor_mean")),
        (0, COLUMNS["nuclei"], ()),  # off the slide
    ):
        neighbors = inputs["neighbor_features"].clone()
        neighbors[:, tile, list(of_kind)] = 1.0
        changed = inputs | {"neighbor_features": neighbors}
        assert_same(guided.fuse(**changed), plain.fuse(**changed), except_for=names)
    # the order of cells has no effect, as turning a patch in training needs it
    turned = guided.fuse(**inputs | {"patches": patch.rot90(1, (2, 3))})
    if not trunk:
        torch.testing.assert_close(turned.z, found.z, atol=1e-4, rtol=1e-4)


def test_the_columns_are_those_of_the_encoder_and_travel_in_the_file(tmp_path: Path) -> None:
    spec = combine_specs([stain_part(56), stain_part(28)])  # parts without a file of weights
    parts, sections = EncoderParts(spec, []), []
    for section in map(tiny_section, range(2)):
        numbers = section.statistics.repeat(1, 1, 2)
        frozen = FrozenFeatures(spec, numbers, numbers[:, 12], parts=parts)
        sections.append(replace(section, frozen_features=frozen))
    settings = replace(QUICK, method="bgtriplex", trunk="none", features=208, epochs=1)
    text = make_random_gene_text(PANEL, 8, 1)
    trained = train_on_sections(sections, PANEL, text, settings=settings, crossval=False)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "bg.safetensors", trained).path)
    config = loaded.network.config
    assert isinstance(config, BGTriplexConfig) and config == trained.network.config
    assert (config.nuclei, config.edges) == tuple(map(find_statistics, (NUCLEI, GRADIENT_ENERGY)))
    # training saw pixels, which it drops for methods that see none
    encoder = fit_section_encoder(sections, settings.dim, settings.patch_um)
    batch = make_section_batch(encode_section(sections[0], encoder))
    flat = batch | {"patches": torch.zeros_like(batch["patches"])}
    tokens, blank = (loaded.network.encode_target(b["patches"]) for b in (batch, flat))
    assert tokens.shape == (24, 32, 16) and tokens.any() and not blank.any()
    for sentence, change in {
        "must be a whole number": {"nuclei": (208,)},
        "must rise": {"edges": (5, 4)},
        "is not a list": {"edges": "13"},
        "without edges": {"edges": ()},
    }.items():
        with pytest.raises(CheckpointError, match=sentence):
            replace(config, **change)
