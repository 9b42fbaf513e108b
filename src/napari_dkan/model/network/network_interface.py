"""Result types that a single network and an ensemble share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

OUTPUT_NAMES = ("final", "fused", "target", "neighbor", "global")


@dataclass(frozen=True)
class FusedTokens:
    """One spot's image evidence: z (B, d) and the mean target and neighbour tokens (B, d)."""

    z: Tensor
    target_mean: Tensor
    neighbor_mean: Tensor


@dataclass(frozen=True)
class ForwardOutputs:
    """A training pass. Predictions (B, G) are standardised: see `DKAN.to_label_scale`.

    image_tokens, expression_tokens : F_img and F_exp, (B, G, d), for the contrastive
    loss; the latter is None where no expression was given.
    """

    final: Tensor
    fused: Tensor
    target: Tensor
    neighbor: Tensor
    global_: Tensor
    image_tokens: Tensor
    expression_tokens: Tensor | None

    @property
    def auxiliary(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.fused, self.target, self.neighbor, self.global_
