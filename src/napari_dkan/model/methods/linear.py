"""Tile encoder and a linear layer: ST-Net without the training of its encoder.

He et al., Nature Biomedical Engineering 2020. A DenseNet-121 is trained there together with the
layer; here the encoder is the frozen one that all methods share. Trained to the end with a penalty
on its weights, the layer is a ridge regression on the own tile.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..network.network_interface import ExpressionNetwork, FusedTokens
from .method_configs import LinearConfig


class LinearNetwork(ExpressionNetwork):
    """A linear layer from the features of the spot's own tile, which are the token z (B, d)."""

    config: LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self._register_label_scale()
        self.head = nn.Linear(config.dim, config.genes)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """See `ExpressionNetwork.fuse_tokens`; all tokens are the own tile's features."""
        z = self.own_tile_features(neighbor_features)
        return FusedTokens(z, z, z)

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; gene tokens have no effect."""
        return self.decode_linear(self.head, z, genes)
