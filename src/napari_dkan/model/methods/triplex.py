"""TRIPLEX: target, neighbourhood and slide fused into one token, and a linear head on it.

Chung et al., CVPR 2024 (arXiv 2403.07592). DKAN grew from it: the branches are the same.
"""

from __future__ import annotations

from torch import Tensor

from ..network.multi_scale_network import MultiScaleNetwork
from .method_configs import TriplexConfig


class Triplex(MultiScaleNetwork):
    """The image branches of DKAN with the linear head of the fused token as the prediction."""

    config: TriplexConfig

    def __init__(self, config: TriplexConfig) -> None:
        super().__init__()
        self.config = config
        self._register_label_scale()
        self._build_branches()
        self._build_heads()

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; gene tokens have no effect."""
        return self.decode_linear(self.head_fused, z, genes)
