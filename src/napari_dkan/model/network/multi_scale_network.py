"""Image branches that TRIPLEX and DKAN have in common: target, neighbour, global and fusion.

Chung et al., CVPR 2024 (arXiv 2403.07592). Shapes: B spots in a batch, M spots of a slide,
K = grid^2 neighbours, G genes, d = config.dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, SpotsError
from .attention_blocks import CrossTransformer, Transformer
from .branch_encoders import GlobalEncoder, TargetTrunk
from .dkan_config import NO_TRUNK, MultiScaleConfig
from .linear_path import NUM_SCALES, average_scales
from .network_config import StackConfig
from .network_interface import ExpressionNetwork, FusedTokens, require_shape


class MultiScaleNetwork(ExpressionNetwork):
    """The branches up to the fused token z, and a linear head on each of them.

    Attribute names of modules, parameters and buffers are tensor names in checkpoint files.
    """

    config: MultiScaleConfig

    def _build_branches(self) -> None:
        config, d = self.config, self.config.dim
        self.trunk = build_trunk(config.trunk, config.trunk_dim)
        if self.trunk is None:
            self.target = build_feature_map(NUM_SCALES * config.feature_dim, d, config.neighbor)
        else:
            self.target = build_adapter(config.trunk_dim, d)
        self.adapt = (
            build_feature_map(config.features, d, config.neighbor)
            if config.features
            else nn.Identity()
        )
        self.neighbor = Transformer(d, int(d * config.neighbor.ratio), config.neighbor, config.grid)
        self.neighbor_norm = nn.LayerNorm(d)
        self.global_encoder = GlobalEncoder(config)
        self.fusion = CrossTransformer(d, int(d * config.fusion.ratio), config.fusion)
        self.fusion_norm = nn.LayerNorm(d)

    def _build_heads(self) -> None:
        """Add the heads; the last modules, so that weights drawn before do not depend on them."""
        d, n_genes = self.config.dim, self.config.genes
        self.head_fused = nn.Linear(d, n_genes)
        self.head_target = nn.Linear(d, n_genes)
        self.head_neighbor = nn.Linear(d, n_genes)
        self.head_global = nn.Linear(d, n_genes)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.encode_global`."""
        m = slide_features.shape[0]
        require_shape("slide features", slide_features, (m, self.config.feature_dim))
        require_shape("positions", positions, (m, 2))
        if m == 0:
            return slide_features.new_zeros(0, self.config.dim)
        if positions.is_floating_point():
            rounded = positions.round()
            if not torch.equal(rounded, positions):
                raise SpotsError("Spot positions must be whole array coordinates.")
            positions = rounded
        slide_features = self.standardize_by_slide(slide_features, slide_features)
        slide_tokens = self.adapt(slide_features)
        tokens: Tensor = self.global_encoder(slide_tokens, positions.long(), query_rows)
        return tokens

    def encode_target(self, patches: Tensor) -> Tensor:
        """See `ExpressionNetwork.encode_target`."""
        require_shape("patches", patches, (patches.shape[0], 3, *patches.shape[-2:]))
        if self.trunk is None:
            return patches.new_zeros(len(patches), 0, self.config.dim)
        tokens: Tensor = self.target(self.trunk(patches))
        return tokens

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """See `ExpressionNetwork.fuse_tokens`."""
        b, k, d = target.shape[0], self.config.grid**2, self.config.dim
        require_shape("target tokens", target, (b, target.shape[1], d))
        require_shape("neighbour features", neighbor_features, (b, k, self.config.feature_dim))
        require_shape("neighbour mask", neighbor_mask, (b, k))
        require_shape("global tokens", global_tokens, (b, d))
        visible = neighbor_mask.bool()
        target, neighbor = self._encode_branches(target, neighbor_features, visible)
        query = global_tokens[:, None]
        fused = self.fusion(query, target) + self.fusion(query, neighbor, visible)
        return FusedTokens(self.fusion_norm(fused)[:, 0], target.mean(dim=1), neighbor.mean(dim=1))

    def _encode_branches(
        self, target: Tensor, neighbor_features: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode target tokens (B, T, d) and neighbour tokens (B, K, d), as they are fused.

        Parameters
        ----------
        target
            Tokens of `encode_target`.
        neighbor_features, visible
            (B, K, feature_dim) and (B, K), see `fuse_tokens`.
        """
        if self.trunk is None:
            target = self.target(average_scales(neighbor_features, visible))[:, None]
        features = self.adapt(neighbor_features)
        return target, self.neighbor_norm(self.neighbor(features, visible))

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict with the four auxiliary heads: (B, G) on the label scale, by head name."""
        heads = self.apply_auxiliary_heads(fused, global_tokens)
        names = ("fused", "target", "neighbor", "global")
        return {n: self.to_label_scale(h.float()) for n, h in zip(names, heads, strict=True)}

    def apply_auxiliary_heads(
        self, fused: FusedTokens, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict standardized expression (B, G) with each auxiliary head."""
        return (
            self.head_fused(fused.z),
            self.head_target(fused.target_mean),
            self.head_neighbor(fused.neighbor_mean),
            self.head_global(tokens),
        )


def build_trunk(name: str, channels: int) -> TargetTrunk | None:
    """Build a trunk of this timm name; None for a network without one.

    Raises CheckpointError if it gives another number of channels.
    """
    if name == NO_TRUNK:
        return None
    trunk = TargetTrunk(name)
    if trunk.channels != channels:
        raise CheckpointError(
            f"The trunk {name} gives {trunk.channels} channels, "
            f"not {channels} as the network description says."
        )
    return trunk


def build_feature_map(length: int, dim: int, stack: StackConfig) -> nn.Module:
    """From tile features of some length to d: dropout, hidden layer, GELU, dropout, d.

    The first dropout is on the features, of which many say nearly the same.
    """
    hidden = int(dim * stack.ratio)
    return nn.Sequential(
        nn.Dropout(stack.dropout),
        nn.Linear(length, hidden),
        nn.GELU(),
        nn.Dropout(stack.dropout),
        nn.Linear(hidden, dim),
    )


def build_adapter(in_features: int, out_features: int) -> nn.Module:
    """Map one width to another: a linear layer, or nothing where they are equal."""
    return nn.Identity() if in_features == out_features else nn.Linear(in_features, out_features)
