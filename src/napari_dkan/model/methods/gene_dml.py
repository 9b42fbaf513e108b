"""Gene-DML: the image branches of TRIPLEX in one space with an embedding of expression.

Song et al., WACV 2026 (arXiv 2507.14670). Expression has a part in training only, where two losses
order the space (`training.fit.losses`): at each scale, images are told apart by the expression of
their spots, and the fused token finds the group that the spot's expression belongs to, and the
reverse.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..network.branch_encoders import ExpressionEncoder
from ..network.multi_scale_network import MultiScaleNetwork
from ..network.network_interface import FusedTokens
from .method_configs import GeneDMLConfig


class GeneDML(MultiScaleNetwork):
    """The branches up to the fused token z, a head of three layers on it, an expression encoder."""

    config: GeneDMLConfig

    def __init__(self, config: GeneDMLConfig) -> None:
        super().__init__()
        self.config = config
        d, dropout = config.dim, config.expression_dropout
        self._register_label_scale()
        self._build_branches()
        self.expression_encoder = ExpressionEncoder(config.genes, d, dropout)
        self.hidden = nn.Sequential(
            *(nn.Linear(d, 3 * d), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(3 * d, d), nn.ReLU(), nn.Dropout(dropout)),
        )
        self.head = nn.Linear(d, config.genes)

    def predict_standardized(self, z: Tensor) -> Tensor:
        """Predict standardized expression (B, G) from fused tokens z (B, d)."""
        predicted: Tensor = self.head(self.hidden(z))
        return predicted

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; gene tokens have no effect."""
        return self.decode_linear(self.head, self.hidden(z), genes)

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict with the only head there is."""
        return {"fused": self.decode(fused.z)}
