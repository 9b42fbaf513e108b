"""Any timm model as a tile encoder: published weights, a local file, or the checkpoint's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, EncoderError
from .encoder_catalog import PUBLISHED_ENCODERS
from .encoder_spec import EncoderSpec
from .encoder_weights import get_weights_sha256
from .timm_builder import create_network, find_published_weights, resolve_timm_model


class TimmEncoder(nn.Module):
    """Tiles (B, 3, px, px), RGB 0..255 -> pooled features (B, dimension) float32.

    Tiles are normalised by the spec's mean and std on the device of the weights.
    tokens : "class" for the model's own pooled output, "class+mean" for its class
    token followed by the mean of its patch tokens.
    """

    mixed_precision = True
    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, net: nn.Module, pooling: str = "class") -> None:
        super().__init__()
        self.spec = spec
        self.net = net
        self.pooling = pooling
        # Not persistent: the spec holds them.
        mean = torch.tensor(spec.mean).view(3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, spec: EncoderSpec, weights: Path | None = None) -> TimmEncoder:
        """With the weights of a local file, or else with the published ones as downloaded.

        Its own spec says which they were: their SHA-256, and the hub's commit. Raises
        EncoderError saying what to do when they are not there, do not fit, or are not those
        that the spec states.
        """
        what = resolve_timm_model(spec.name, spec.revision)
        file = weights or find_published_weights(what, spec.revision)
        digest = get_weights_sha256(file)
        if spec.sha256 and digest != spec.sha256:
            raise EncoderError(
                f"{file} is not the weights file that this checkpoint was trained with: its "
                f"SHA-256 begins {digest[:12]} instead of {spec.sha256[:12]}"
                f"{f' (revision {spec.revision})' if spec.revision else ''}; give that one."
            )
        net = create_network(what, file)
        made = replace(spec, sha256=digest, revision=spec.revision or _get_cached_commit(file))
        return cls._from_network(made, net)

    @classmethod
    def create_untrained(cls, spec: EncoderSpec) -> TimmEncoder:
        """With random weights: for benchmarks, and to be filled."""
        return cls._from_network(
            spec, create_network(resolve_timm_model(spec.name, spec.revision), None)
        )

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> TimmEncoder:
        """With the weights that travel in a checkpoint. Raises EncoderError if they do not fit."""
        if spec.name.startswith("hf-hub:") and spec.name not in PUBLISHED_ENCODERS:
            # Building it would ask the hub, which merely opening a file must not do.
            raise EncoderError(f"The weights of {spec.name} cannot travel in a checkpoint.")
        try:
            with torch.device("meta"):  # compared before anything is allocated
                shell = cls.create_untrained(spec)
            shell.net.load_state_dict(dict(tensors), assign=True)
            encoder = cls.create_untrained(spec)
            encoder.net.load_state_dict(dict(tensors))
        except RuntimeError:
            raise EncoderError(
                f"The weights in this checkpoint do not fit its encoder {spec.name}."
            ) from None
        return encoder

    @classmethod
    def _from_network(cls, spec: EncoderSpec, net: nn.Module) -> TimmEncoder:
        tokens = (
            PUBLISHED_ENCODERS[spec.name].pooling if spec.name in PUBLISHED_ENCODERS else "class"
        )
        width = _get_pooled_width(net) * (2 if tokens == "class+mean" else 1)
        if width != spec.dimension:
            raise EncoderError(
                f"The encoder {spec.name} gives {width} features, not the {spec.dimension} "
                "that are stated."
            )
        return cls(spec, net, tokens)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, for a checkpoint that carries them."""
        return dict(self.net.state_dict())

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Raises EncoderError when the tiles are not (B, 3, px, px)."""
        px = self.spec.px
        if tiles.ndim != 4 or tuple(tiles.shape[1:]) != (3, px, px):
            raise EncoderError(
                f"The tiles have shape {tuple(tiles.shape)}; {self.spec.name} takes "
                f"(B, 3, {px}, {px})."
            )
        x = (tiles.to(self.mean.device).float() / 255 - self.mean) / self.std
        if self.pooling == "class":
            return self.net(x).float()
        seen = self.net.forward_features(x)
        patches = seen[:, self.net.num_prefix_tokens :].mean(dim=1)
        return torch.cat([seen[:, 0], patches], dim=1).float()


def read_timm_spec(name: str) -> EncoderSpec:
    """What timm (or, for unknown `hf-hub:` names, the hub) says about a model.

    Raises EncoderError when the name is unknown or the hub does not answer.
    """
    if name in PUBLISHED_ENCODERS:
        return PUBLISHED_ENCODERS[name].spec
    what = resolve_timm_model(name, allow_network=True)
    with torch.device("meta"):
        net = create_network(what, None)
    stated = {**getattr(net, "pretrained_cfg", {}), **what.pretrained}
    channels, height, width = stated.get("input_size") or (3, 224, 224)
    if channels != 3 or height != width:
        raise EncoderError(f"The encoder {name} does not take square RGB tiles; choose another.")
    try:
        return EncoderSpec(
            name,
            dimension=_get_pooled_width(net),
            px=int(height),
            mean=tuple(stated["mean"]),
            std=tuple(stated["std"]),
            licence=str(stated.get("license") or ""),
        )
    except (KeyError, TypeError, CheckpointError):
        raise EncoderError(
            f"The encoder {name} does not state its normalisation; choose another."
        ) from None


def _get_cached_commit(file: Path) -> str:
    """The hub's commit of a file in its cache, "" of any other file."""
    folder = file.parent
    return folder.name if folder.parent.name == "snapshots" else ""


def _get_pooled_width(net: Any) -> int:
    """Length of the pooled output; some convolutional heads widen it past num_features."""
    return int(getattr(net, "head_hidden_size", None) or net.num_features)
