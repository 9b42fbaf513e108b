"""The DKAN network: exact shortcuts equal the full computation, and order does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dkan.errors import CheckpointError, SpotsError
from napari_dkan.model.network import dkan_network as network_module
from napari_dkan.model.network.attention_blocks import (
    FeedForward,
    RelativePositionBias,
    SingleKeyTransformer,
)
from napari_dkan.model.network.branch_encoders import PositionEncoding, TargetTrunk
from napari_dkan.model.network.dkan_config import DKANConfig
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.model.network.network_config import StackConfig

SIX = StackConfig(depth=2, heads=4, ratio=2.0, dropout=0.3)
CONFIG = DKANConfig(
    genes=6,
    dim=16,
    text_dim=12,
    trunk="test_resnet",
    trunk_dim=96,
    fusion=SIX,
    global_=SIX,
    neighbor=SIX,
    image=SIX,
    expression=SIX,
    text=SIX,
)


def make_network() -> DKAN:
    torch.manual_seed(0)
    network = DKAN(CONFIG, torch.randn(6, 12))
    for parameter in network.parameters():  # also biases, which are zero at first
        torch.nn.init.normal_(parameter, std=0.15)
    network.label_mean.copy_(torch.linspace(-1, 1, 6))
    network.label_std.copy_(torch.linspace(0.5, 2, 6))
    return network.eval()


@pytest.fixture(scope="module")
def network() -> DKAN:
    return make_network()


@pytest.fixture(scope="module")
def slide():
    random = torch.Generator().manual_seed(1)
    cells = torch.randperm(40, generator=random)[:14]
    return {
        "patches": torch.randn(14, 3, 64, 64, generator=random),
        "slide_features": torch.randn(14, 16, generator=random),
        "positions": torch.stack([cells // 5 - 3, cells % 5 + 100], dim=1),
        "neighbor_features": torch.randn(14, 25, 16, generator=random),
        "neighbor_mask": (torch.rand(14, 25, generator=random) > 0.3).float(),
    }


# --- exactness ---------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 4])
def test_the_single_key_form_equals_full_attention_to_one_key(heads):
    """W_o softmax(q k / sqrt(d)) v over one key, written out, with queries and keys of any size."""
    torch.manual_seed(2)
    d = 16
    stack = SingleKeyTransformer(d, 32, StackConfig(depth=3, heads=heads, dropout=0.5)).eval()
    genes, token = torch.randn(1, 5, d), torch.randn(4, d)
    x = genes.expand(4, -1, -1)
    for attention, feed in zip(stack.attention, stack.feed, strict=True):
        q = (attention.norm(x) @ (3 * torch.randn(d, d))).view(4, 5, heads, -1)
        key = attention.norm(token)[:, None]
        k = (key @ (3 * torch.randn(d, d))).view(4, 1, heads, -1)
        v = attention.value(key).view(4, 1, heads, -1)
        scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / (d / heads) ** 0.5
        mixed = torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v).reshape(4, 5, d)
        x = feed(x + attention.out(mixed))
    assert torch.allclose(stack(genes, token), x, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_position_encoding_equals_a_convolution_of_the_transposed_dense_grid(kernel):
    torch.manual_seed(3)
    layer = PositionEncoding(8, kernel)
    cells = torch.randperm(42)[:20]
    positions = torch.stack([cells // 6 - 2, cells % 6 + 9], dim=1)
    tokens = torch.randn(20, 8)
    first, second = (positions - positions.amin(0)).unbind(1)
    grid = torch.zeros(1, 8, 6, 7)  # rows along axis 1, columns along axis 0
    grid[0, :, second, first] = tokens.T
    out = F.conv2d(grid, layer.weight[:, None], layer.bias, padding=kernel // 2, groups=8)
    dense = tokens + out[0, :, second, first].T
    assert torch.allclose(layer(tokens, positions), dense, atol=1e-5)


def test_the_position_encoding_takes_a_huge_sparse_array():
    layer = PositionEncoding(8, 3)
    tokens = torch.randn(3, 8)
    far = torch.tensor([[0, 0], [10**8, 10**8], [-(10**8), 5]])
    alone = tokens + layer.bias + tokens * layer.weight[:, 1, 1]
    assert torch.allclose(layer(tokens, far), alone, atol=1e-6)


def test_relative_offsets_are_numbered_as_they_first_occur():
    bias = RelativePositionBias(2, 5)
    numbers: dict[tuple[int, int], int] = {}
    cells = [(y, x) for y in range(5) for x in range(5)]
    for i, (y, x) in enumerate(cells):
        for j, (v, u) in enumerate(cells):
            number = numbers.setdefault((abs(y - v), abs(x - u)), len(numbers))
            assert bias.offset[i, j] == number


def test_genes_are_independent_of_each_other_and_of_chunking(network: DKAN, monkeypatch):
    z = torch.randn(9, 16)
    with torch.no_grad():
        whole = network.decode(z)
        for rows in (1, 4, 20):
            monkeypatch.setattr(network_module, "MAX_DECODE_ROWS", rows)
            assert torch.allclose(network.decode(z), whole, atol=1e-6)
            for genes in ([5], [2, 0], [3, 3]):
                chosen = torch.tensor(genes)
                assert torch.allclose(network.decode(z, chosen), whole[:, chosen], atol=1e-6)
    assert network.decode(z[:0]).shape == (0, 6)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(14)), shift=st.tuples(*[st.integers(-500, 500)] * 2))
def test_row_order_and_origin_do_not_matter(network: DKAN, slide, order, shift):
    whole = network.predict(**slide)
    moved = {k: v[list(order)] for k, v in slide.items()}
    moved["positions"] = moved["positions"] + torch.tensor(shift)
    for name, values in network.predict(**moved, batch_size=5).items():
        assert torch.allclose(values, whole[name][list(order)], atol=1e-5), name


def test_neighbors_outside_the_slide_have_no_effect(network: DKAN, slide):
    noise = slide | {
        "neighbor_features": torch.where(
            slide["neighbor_mask"][..., None] > 0, slide["neighbor_features"], 100.0
        )
    }
    a, b = network.predict(**slide)["final"], network.predict(**noise)["final"]
    assert torch.allclose(a, b, atol=1e-5)
    nothing = slide | {"neighbor_mask": torch.zeros(14, 25)}
    assert torch.isfinite(network.predict(**nothing)["final"]).all()


# --- state -------------------------------------------------------------------------------


def test_prediction_is_deterministic_and_restores_the_mode(network: DKAN, slide):
    first = network.predict(**slide)["final"]
    network.train()
    again = network.predict(**slide)["final"]
    assert network.training
    network.eval()
    assert torch.equal(first, again)


def test_text_tokens_are_computed_once_until_the_weights_change():
    network, calls = make_network(), []
    network.text_fit.register_forward_hook(lambda *call: calls.append(call))
    with torch.inference_mode():
        first = network.encode_genes()
    with torch.no_grad():
        assert network.encode_genes() is first and len(calls) == 1
        network.text.feed[0].contract.weight.add_(1.0)
        assert not torch.allclose(network.encode_genes(), first)
        network.load_state_dict(make_network().state_dict())
        assert torch.allclose(network.encode_genes(), first)
        network.train().eval()
        assert torch.allclose(network.encode_genes(), first)
        assert network.double().encode_genes().dtype == torch.float64
    assert network.encode_genes().requires_grad  # never a stale constant under gradients


def test_auxiliary_and_final_heads_are_on_the_label_scale(network: DKAN, slide):
    with torch.no_grad():
        out = network(**slide)
    predicted = network.predict(**slide)
    for ours, name in ((out.final, "final"), (out.target, "target"), (out.global_, "global")):
        assert torch.allclose(network.to_label_scale(ours), predicted[name], atol=1e-5)
    assert torch.allclose(network.from_label_scale(predicted["final"]), out.final, atol=1e-5)


def test_a_training_pass_reaches_every_weight(slide):
    network = make_network().train()
    rows = torch.tensor([3, 8, 1, 12])
    batch = {k: v[rows] if k.startswith(("patch", "neighbor")) else v for k, v in slide.items()}
    out = network(**batch, rows=rows, expression=torch.rand(4, 6))
    assert out.image_tokens.shape == out.expression_tokens.shape == (4, 6, 16)
    heads = (out.final, *out.auxiliary, out.image_tokens, out.expression_tokens)
    sum((h * torch.randn_like(h)).sum() for h in heads).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert network(**batch, rows=rows).expression_tokens is None


def test_rows_of_a_section_predict_as_the_whole_section(network: DKAN, slide):
    rows = torch.tensor([13, 0, 6])
    batch = {k: v[rows] if k.startswith(("patch", "neighbor")) else v for k, v in slide.items()}
    with torch.no_grad():
        final = network.to_label_scale(network(**batch, rows=rows).final)
    assert torch.allclose(final, network.predict(**slide)["final"][rows], atol=1e-5)


def test_mixed_precision_is_close_to_float32(network: DKAN, slide):
    whole = network.predict(**slide)["final"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network.predict(**slide)["final"]
    assert rough.dtype == torch.float32
    assert (whole - rough).abs().max() < 0.05 * whole.abs().max()


@pytest.mark.parametrize(
    ("name", "px", "tokens"),
    [("resnet18", 224, 49), ("resnet18", 64, 4), ("test_vit", 160, 100), ("test_convnext", 64, 4)],
)
def test_any_timm_trunk_gives_tokens(name, px, tokens):
    trunk = TargetTrunk(name).eval()
    with torch.no_grad():
        assert trunk(torch.randn(2, 3, px, px)).shape == (2, tokens, trunk.channels)


def test_feed_forward_is_pre_norm():
    feed = FeedForward(8, 16, 0.5).eval()
    x = torch.randn(3, 8)
    long = x + feed.contract(F.gelu(feed.expand(F.layer_norm(x, (8,)))))
    assert torch.allclose(feed(x), long, atol=1e-6)


# --- refusals ----------------------------------------------------------------------------


def test_shared_positions_are_refused(network: DKAN, slide):
    positions = slide["positions"].clone()
    positions[[4, 9]] = positions[2].clone()
    x, y = positions[2].tolist()
    with pytest.raises(SpotsError, match=rf"3 spots share the array position \({x}, {y}\);"):
        network.predict(**slide | {"positions": positions})
    positions[5] = positions[6].clone()
    with pytest.raises(SpotsError, match="more rows repeat"):
        network.predict(**slide | {"positions": positions})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("patches", torch.zeros(14, 1, 64, 64)),
        ("slide_features", torch.zeros(14, 15)),
        ("positions", torch.zeros(13, 2)),
        ("positions", torch.arange(28).view(14, 2) + 0.5),
        ("neighbor_features", torch.zeros(14, 9, 16)),
        ("neighbor_mask", torch.zeros(13, 25)),
    ],
)
def test_input_of_wrong_shape_is_refused(network: DKAN, slide, name, wrong):
    with pytest.raises(SpotsError, match=r"shape|whole array coordinates"):
        network.predict(**slide | {name: wrong})


@pytest.mark.parametrize(
    "change",
    [
        {"genes": 0},
        {"genes": True},
        {"dim": 10**9},
        {"dim": 18},
        {"kernel": 4},
        {"trunk": "hf-hub:somebody/something"},
        {"trunk": "../../etc"},
        {"trunk": 7},
        {"image": {"depth": 10**6}},
        {"image": {"heads": 0}},
        {"text": {"ratio": float("nan")}},
        {"fusion": {"unknown": 1}},
        {"fusion": []},
        {"colour": "blue"},
    ],
)
def test_invalid_configurations_are_refused(change):
    data = CONFIG.to_json()
    for key, value in change.items():
        data[key] = data[key] | value if isinstance(value, dict) else value
    with pytest.raises(CheckpointError):
        DKANConfig.from_json(data)


def test_a_config_round_trips_through_json():
    import json

    assert DKANConfig.from_json(json.loads(json.dumps(CONFIG.to_json()))) == CONFIG
    assert np.isclose(DKANConfig.from_json({"genes": 3}).fusion.dropout, 0.1)


def test_global_tokens_of_some_rows_equal_those_of_all(network: DKAN, slide):
    with torch.inference_mode():
        features, positions = slide["slide_features"], slide["positions"]
        every = network.encode_global(features, positions)
        some = network.encode_global(features, positions, query_rows=torch.tensor([3, 0]))
    torch.testing.assert_close(some, every[[3, 0]], atol=1e-5, rtol=1e-5)
