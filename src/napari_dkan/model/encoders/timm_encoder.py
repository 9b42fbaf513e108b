"""A timm model as tile encoder, with published, local or bundled weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, EncoderError
from ..network.inference_optimization import fold_batch_norms
from .encoder_catalog import PUBLISHED_ENCODERS
from .encoder_spec import EncoderSpec
from .encoder_weights import get_weights_sha256
from .timm_builder import create_network, find_published_weights, resolve_timm_model


class TimmEncoder(nn.Module):
    """Tiles (B, 3, px, px), RGB 0..255 -> pooled features (B, dimension) float32.

    Tiles are normalised by the spec's mean and std on the device of the weights.

    Parameters
    ----------
    pooling
        "class" for the model's own pooled output, "class+mean" for its class token followed by the
        mean of its patch tokens. Without effect where the spec names stages (`out_indices`): their
        channel means are the features, and later stages are not kept.
    """

    mixed_precision = True
    mean: Tensor
    std: Tensor
    net: Any

    def __init__(self, spec: EncoderSpec, net: nn.Module, pooling: str = "class") -> None:
        super().__init__()
        self.spec = spec
        self.net = net
        self.pooling = pooling
        # Not persistent: the spec has them.
        mean = torch.tensor(spec.mean).view(3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self._folded: list[nn.Module] = []  # a list, so that it is no submodule

    @classmethod
    def load(cls, spec: EncoderSpec, weights: Path | None = None) -> TimmEncoder:
        """Load the weights of a local file, or else the downloaded published ones.

        The encoder's spec records their SHA-256 and the hub's commit.

        Raises
        ------
        EncoderError
            If the weights are absent, do not fit, or have another SHA-256 than `spec` states.
        """
        model_spec = resolve_timm_model(spec.name, spec.revision)
        file = weights or find_published_weights(model_spec, spec.revision)
        digest = get_weights_sha256(file)
        if spec.sha256 and digest != spec.sha256:
            raise EncoderError(
                f"{file} is not the weights file that this checkpoint was trained with: its "
                f"SHA-256 begins {digest[:12]} instead of {spec.sha256[:12]}"
                f"{f' (revision {spec.revision})' if spec.revision else ''}; give that one."
            )
        net = create_network(model_spec, file)
        revision = spec.revision or _get_cached_commit(file)
        return cls._from_network(replace(spec, sha256=digest, revision=revision), net)

    @classmethod
    def create_untrained(cls, spec: EncoderSpec) -> TimmEncoder:
        """Build with random weights."""
        return cls._from_network(
            spec, create_network(resolve_timm_model(spec.name, spec.revision), None)
        )

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> TimmEncoder:
        """Build with the weights that are bundled in a checkpoint.

        Raises EncoderError if they do not fit.
        """
        if spec.name.startswith("hf-hub:") and spec.name not in PUBLISHED_ENCODERS:
            # Building it would ask the hub, which must not happen when a file is opened.
            raise EncoderError(f"The weights of {spec.name} cannot travel in a checkpoint.")
        try:
            with torch.device("meta"):  # names and shapes are compared before allocation
                meta_encoder = cls.create_untrained(spec)
            meta_encoder.net.load_state_dict(dict(tensors), assign=True)
            encoder = cls.create_untrained(spec)
            encoder.net.load_state_dict(dict(tensors))
        except RuntimeError:
            raise EncoderError(
                f"The weights in this checkpoint do not fit its encoder {spec.name}."
            ) from None
        return encoder

    @classmethod
    def _from_network(cls, spec: EncoderSpec, net: nn.Module) -> TimmEncoder:
        published = PUBLISHED_ENCODERS.get(spec.name)
        pooling = "class" if published is None else published.pooling
        if spec.out_indices:
            width = _truncate(net, spec)
        else:
            width = _get_pooled_width(net) * (2 if pooling == "class+mean" else 1)
        if width != spec.dimension:
            raise EncoderError(
                f"The encoder {spec.name} gives {width} features, not the {spec.dimension} "
                "that are stated."
            )
        return cls(spec, net, pooling)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, to be bundled in a checkpoint."""
        return dict(self.net.state_dict())

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Encode tiles; raises EncoderError if they are not (B, 3, px, px)."""
        px = self.spec.px
        if tiles.ndim != 4 or tuple(tiles.shape[1:]) != (3, px, px):
            raise EncoderError(
                f"The tiles have shape {tuple(tiles.shape)}; {self.spec.name} takes "
                f"(B, 3, {px}, {px})."
            )
        x = (tiles.to(self.mean.device).float() / 255 - self.mean) / self.std
        if self.spec.out_indices:
            return self._average_stages(x)
        if self.pooling == "class":
            features: Tensor = self.net(x)
            return features.float()
        tokens: Tensor = self.net.forward_features(x)
        patches = tokens[:, self.net.num_prefix_tokens :].mean(dim=1)
        return torch.cat([tokens[:, 0], patches], dim=1).float()

    def _average_stages(self, x: Tensor) -> Tensor:
        """(B, 3, px, px) normalised -> channel means of the stages, (B, dimension)."""
        if not self._folded:
            # Tensors that are created in inference mode cannot be used outside.
            with torch.inference_mode(False), torch.no_grad():
                has_norms = any(isinstance(m, nn.BatchNorm2d) for m in self.net.modules())
                folded = fold_batch_norms(self.net, self.spec.px) if has_norms else self.net
                self._folded.append(folded.to(self.mean.device))
        net: Any = self._folded[0]
        maps = net.forward_intermediates(
            x.contiguous(memory_format=torch.channels_last),
            indices=list(self.spec.out_indices),
            intermediates_only=True,
        )
        return torch.cat([m.float().mean(dim=(2, 3)) for m in maps], dim=1)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._folded.clear()  # made anew on the other device
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def read_timm_spec(
    name: str, out_indices: tuple[int, ...] = (), px: int | None = None
) -> EncoderSpec:
    """Read the spec of an encoder from the catalogue, timm, or the hub (other `hf-hub:` names).

    Parameters
    ----------
    out_indices
        See `EncoderSpec`.
    px
        Side of the tiles in place of the model's usual one.

    Raises
    ------
    EncoderError
        If the name is unknown, the hub does not answer, or the model has no such stages.
    """
    spec = _read_pooled_spec(name)
    if px is not None:
        spec = replace(spec, px=px, mpp=None)
    if not out_indices:
        return spec
    with torch.device("meta"):
        net = create_network(resolve_timm_model(name, allow_network=True), None)
    spec = replace(spec, out_indices=out_indices)
    return replace(spec, dimension=_truncate(net, spec))


def _read_pooled_spec(name: str) -> EncoderSpec:
    if name in PUBLISHED_ENCODERS:
        return PUBLISHED_ENCODERS[name].spec
    model_spec = resolve_timm_model(name, allow_network=True)
    with torch.device("meta"):
        net = create_network(model_spec, None)
    config = {**getattr(net, "pretrained_cfg", {}), **model_spec.pretrained}
    channels, height, width = config.get("input_size") or (3, 224, 224)
    if channels != 3 or height != width:
        raise EncoderError(f"The encoder {name} does not take square RGB tiles; choose another.")
    try:
        return EncoderSpec(
            name,
            dimension=_get_pooled_width(net),
            px=int(height),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            licence=str(config.get("license") or ""),
        )
    except (KeyError, TypeError, CheckpointError):
        raise EncoderError(
            f"The encoder {name} does not state its normalisation; choose another."
        ) from None


def _get_cached_commit(file: Path) -> str:
    """Return the hub's commit of a file in its cache, "" of any other file."""
    folder = file.parent
    return folder.name if folder.parent.name == "snapshots" else ""


def _truncate(net: Any, spec: EncoderSpec) -> int:
    """Remove what follows the last stage that is used, and return the sum of their channels."""
    name, stages = spec.name, list(spec.out_indices)
    try:
        channels = [m["num_chs"] for m in net.feature_info]
        kept = net.prune_intermediate_layers(stages, prune_norm=True, prune_head=True)
    except (AttributeError, AssertionError, IndexError, TypeError, KeyError, ValueError):
        raise EncoderError(
            f"timm gives no stages {stages} of the encoder {name}; name others, or none."
        ) from None
    if list(kept) != stages or stages[-1] >= len(channels):
        raise EncoderError(f"The encoder {name} has no stages {stages}.")
    return sum(channels[i] for i in stages)


def _get_pooled_width(net: Any) -> int:
    """Return the length of the pooled output; some convolutional heads widen num_features."""
    return int(getattr(net, "head_hidden_size", None) or net.num_features)
