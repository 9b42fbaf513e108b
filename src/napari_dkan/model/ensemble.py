"""Several DKAN networks behind one network's interface; predictions are their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .config import DKANConfig
from .network import DKAN, predict_section
from .results import Fused


class Ensemble(nn.Module):
    """E members of one shape, trained on the same panel from different seeds.

    Every token is the members' tokens side by side, so an engine that computes slide and gene
    tokens once does so here too; d below stands for E times the members' width, but features come
    in the width of one, since the members share a tile encoder.

    Raises CheckpointError when the members are not of one shape.
    """

    def __init__(self, members: Sequence[DKAN]) -> None:
        super().__init__()
        if len({m.config for m in members}) != 1:
            raise CheckpointError("The members of an ensemble must have one shape.")
        self.members = nn.ModuleList(members)
        self.config: DKANConfig = replace(members[0].config, members=len(members))

    @property
    def device(self) -> torch.device:
        return self.label_mean.device

    @property
    def label_mean(self) -> Tensor:
        return self._mean([m.label_mean for m in self.all_members])

    @property
    def label_std(self) -> Tensor:
        return self._mean([m.label_std for m in self.all_members])

    @property
    def gene_features(self) -> Tensor:
        return self.all_members[0].gene_features

    def on_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """As `DKAN.on_slide`."""
        return self.all_members[0].on_slide(features, slide_features)

    def global_tokens(
        self, slide_features: Tensor, positions: Tensor, only: Tensor | None = None
    ) -> Tensor:
        """(M, width of one), integers (M, 2) -> (M, d); only : as `DKAN.global_tokens`."""
        each = [m.global_tokens(slide_features, positions, only) for m in self.all_members]
        return torch.cat(each, dim=1)

    def target_tokens(self, patches: Tensor) -> Tensor:
        """As `DKAN.target_tokens`: (B, T, d)."""
        return torch.cat([m.target_tokens(patches) for m in self.all_members], dim=2)

    def fuse(
        self,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> Fused:
        """As `DKAN.fuse`; global_tokens are (B, d), and so is all that comes back."""
        target = self.target_tokens(patches)
        return self.join(target, neighbor_features, neighbor_mask, global_tokens)

    def join(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> Fused:
        """As `DKAN.join`, of target (B, T, d) and global_tokens (B, d)."""
        each = [
            m.join(own, neighbor_features, neighbor_mask, tokens)
            for m, own, tokens in zip(
                self.all_members,
                target.chunk(len(self.members), dim=2),
                self._split(global_tokens),
                strict=True,
            )
        ]
        return Fused(
            torch.cat([f.z for f in each], dim=1),
            torch.cat([f.target_mean for f in each], dim=1),
            torch.cat([f.neighbor_mean for f in each], dim=1),
        )

    def gene_tokens(self) -> Tensor:
        """Text tokens (G, d)."""
        return torch.cat([m.gene_tokens() for m in self.all_members], dim=1)

    def text_token_of(self, features: Tensor) -> Tensor:
        """Text tokens (K, d) of genes outside the panel, from their features (K, d_t)."""
        return torch.cat([m.text_token_of(features) for m in self.all_members], dim=1)

    def decode(self, z: Tensor, genes: Tensor | None = None) -> Tensor:
        """Mean prediction of z (B, d) on the label scale, as `DKAN.decode`."""
        parts = zip(self.all_members, self._split(z), strict=True)
        return self._mean([m.decode(own, genes) for m, own in parts])

    def decode_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Mean standardised prediction (B, K) for genes given by their tokens (K, d)."""
        parts = zip(self.all_members, self._split(z), self._split(tokens), strict=True)
        return self._mean([m.decode_tokens(own, t) for m, own, t in parts])

    def auxiliary(self, fused: Fused, global_tokens: Tensor) -> dict[str, Tensor]:
        """The four auxiliary predictions (B, G) on the label scale, by head name."""
        parts = zip(
            self.all_members,
            self._split(fused.z),
            self._split(fused.target_mean),
            self._split(fused.neighbor_mean),
            self._split(global_tokens),
            strict=True,
        )
        each = [m.auxiliary(Fused(*own), tokens) for m, *own, tokens in parts]
        return {name: self._mean([heads[name] for heads in each]) for name in each[0]}

    def from_label_scale(self, labels: Tensor) -> Tensor:
        """(B, G) labels -> standardised, as `decode_tokens` gives."""
        return (labels - self.label_mean) / self.label_std

    def predict(
        self,
        patches: Tensor,
        slide_features: Tensor,
        positions: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        batch_size: int = 64,
    ) -> dict[str, Tensor]:
        """As `DKAN.predict`."""
        return predict_section(
            self,
            patches,
            slide_features,
            positions,
            neighbor_features,
            neighbor_mask,
            batch_size,
        )

    @property
    def all_members(self) -> list[DKAN]:
        return list(self.members)  # type: ignore[arg-type]

    def _split(self, side_by_side: Tensor) -> tuple[Tensor, ...]:
        return side_by_side.chunk(len(self.members), dim=1)

    @staticmethod
    def _mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values)).mean(dim=0)


def together(networks: Sequence[DKAN]) -> DKAN | Ensemble:
    """One network as it is, several as an ensemble in eval mode."""
    return networks[0] if len(networks) == 1 else Ensemble(networks).eval()
