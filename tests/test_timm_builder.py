"""Encoders whose weights have names of other libraries compute the same as those libraries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_dkan.errors import EncoderError
from napari_dkan.model.encoders import build_encoder, encoder_catalog, resolve_encoder_spec
from napari_dkan.model.encoders.timm_builder import ConchImageTower
from napari_dkan.model.encoders.timm_encoder import TimmEncoder

PX, WIDTH, DEPTH, HEADS = 32, 48, 3, 4
SMALL = {"img_size": PX, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": 2}


def register_small_variant(monkeypatch, short):
    """Register a published encoder with fewer and narrower layers and patches of 8 px."""
    published = encoder_catalog.PUBLISHED_ENCODERS[resolve_encoder_spec(short).name]
    name = f"hf-hub:small/{published.short_name}"
    options = {**published.options, **SMALL, "patch_size": 8}
    spec = replace(published.spec, name=name, dimension=WIDTH, px=PX)
    monkeypatch.setitem(
        encoder_catalog.PUBLISHED_ENCODERS, name, replace(published, spec=spec, options=options)
    )
    return spec


def randomize_weights(net):
    """Draw every weight of a network at random, since initial zeros and ones hide mistakes."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=draw))
    return net.eval()


@pytest.fixture
def tiles():
    return torch.randint(0, 256, (3, 3, PX, PX), generator=torch.Generator().manual_seed(1))


def normalise(tiles, spec):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    return (tiles / 255 - mean) / std


@pytest.mark.parametrize(("short", "kind"), [("phikon", "ViT"), ("phikon-v2", "Dinov2")])
def test_phikon_equals_transformers(short, kind, tiles, monkeypatch, tmp_path):
    """The files are written by transformers, with the names of the files on the hub."""
    transformers = pytest.importorskip("transformers")
    spec = register_small_variant(monkeypatch, short)
    size = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    size |= {"image_size": PX, "patch_size": 8, "layer_norm_eps": 1e-6}
    size |= {"intermediate_size": 2 * WIDTH} if kind == "ViT" else {"mlp_ratio": 2}
    config = getattr(transformers, f"{kind}Config")(**size)
    model = randomize_weights(getattr(transformers, f"{kind}Model")(config))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(pixel_values=normalise(tiles, spec)).last_hidden_state[:, 0]
    encoder = build_encoder(spec, weights=tmp_path / "model.safetensors")
    torch.testing.assert_close(encoder(tiles), expected, atol=1e-5, rtol=1e-5)


def compute_conch_reference(state, tokens, heads):
    """Compute CONCH's pooled tokens head by head, from tensors with the published names."""

    def norm(name, x):
        weight, bias = (state[f"visual.{name}.{part}"] for part in ("weight", "bias"))
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias)

    pool = "visual.attn_pool_contrast."
    seen = norm("attn_pool_contrast.ln_k", tokens)
    asked = norm("attn_pool_contrast.ln_q", state[pool + "query"])
    biases = state[pool + "attn.in_proj_bias"].chunk(3)
    q, k, v = (
        x @ state[f"{pool}attn.{n}_proj_weight"].T + bias
        for x, n, bias in zip((asked, seen, seen), "qkv", biases, strict=True)
    )
    parts = []
    for at in torch.arange(q.shape[-1]).chunk(heads):
        weight = (q[:, at] @ k[..., at].mT / len(at) ** 0.5).softmax(dim=-1)
        parts.append((weight @ v[..., at])[:, 0])
    out = torch.cat(parts, -1) @ state[pool + "attn.out_proj.weight"].T
    return norm("ln_contrast", out + state[pool + "attn.out_proj.bias"])


def test_conch_pooling_equals_its_formula(tiles, monkeypatch, tmp_path):
    """Its file also holds text and caption layers, which are ignored."""
    spec = replace(register_small_variant(monkeypatch, "conch"), dimension=512)
    trunk = timm.create_model(
        "vit_base_patch16_224", num_classes=0, dynamic_img_size=True, patch_size=8, **SMALL
    )
    tower = randomize_weights(ConchImageTower(trunk))
    state = {f"visual.{n}": t for n, t in tower.state_dict().items()}
    others = ("text.cls_emb", "logit_scale", "visual.proj_contrast", "visual.attn_pool_caption.x")
    save_file(state | {n: torch.ones(2) for n in others}, tmp_path / "conch.safetensors")
    with torch.no_grad():
        expected = compute_conch_reference(state, trunk.forward_features(normalise(tiles, spec)), 8)
    encoder = build_encoder(spec, weights=tmp_path / "conch.safetensors")
    torch.testing.assert_close(encoder(tiles), expected, atol=1e-4, rtol=1e-4)
    state.pop("visual.attn_pool_contrast.query")
    save_file(state, tmp_path / "lacking.safetensors")
    with pytest.raises(EncoderError, match="does not hold weights of"):
        build_encoder(spec, weights=tmp_path / "lacking.safetensors")


def test_numbers_of_parameters_are_as_published():
    """A wrong argument changes the number of parameters."""
    millions = {"phikon": 85.8, "phikon-v2": 303.4, "conch": 88.0}
    with torch.device("meta"):
        for name, size in millions.items():
            encoder = TimmEncoder.create_untrained(resolve_encoder_spec(name))
            assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(size, 0.005)
            px = encoder.spec.px
            assert encoder(torch.zeros(1, 3, px, px)).shape == (1, encoder.spec.dimension)


def test_a_file_of_another_encoder_is_refused(tmp_path):
    torch.save({"cls_token": torch.zeros(1, 1, 768)}, tmp_path / "w.bin")
    for name in ("phikon", "conch", "uni"):
        with pytest.raises(EncoderError, match=r"does not hold weights of .*; give the file"):
            build_encoder(resolve_encoder_spec(name), weights=tmp_path / "w.bin")
