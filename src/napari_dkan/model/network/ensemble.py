"""An ensemble of DKAN networks with the interface of one network; it predicts their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .dkan_config import DKANConfig
from .dkan_network import DKAN, predict_section
from .network_interface import FusedTokens


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
        return self._average([m.label_mean for m in self.member_networks])

    @property
    def label_std(self) -> Tensor:
        return self._average([m.label_std for m in self.member_networks])

    @property
    def gene_features(self) -> Tensor:
        return self.member_networks[0].gene_features

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """As `DKAN.on_slide`."""
        return self.member_networks[0].standardize_by_slide(features, slide_features)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """(M, width of one), integers (M, 2) -> (M, d); only : as `DKAN.global_tokens`."""
        each = [
            m.encode_global(slide_features, positions, query_rows) for m in self.member_networks
        ]
        return torch.cat(each, dim=1)

    def encode_target(self, patches: Tensor) -> Tensor:
        """As `DKAN.target_tokens`: (B, T, d)."""
        return torch.cat([m.encode_target(patches) for m in self.member_networks], dim=2)

    def fuse(
        self,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """As `DKAN.fuse`; global_tokens are (B, d), and so is all that comes back."""
        target = self.encode_target(patches)
        return self.fuse_tokens(target, neighbor_features, neighbor_mask, global_tokens)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """As `DKAN.join`, of target (B, T, d) and global_tokens (B, d)."""
        each = [
            m.fuse_tokens(own, neighbor_features, neighbor_mask, tokens)
            for m, own, tokens in zip(
                self.member_networks,
                target.chunk(len(self.members), dim=2),
                self._split_members(global_tokens),
                strict=True,
            )
        ]
        return FusedTokens(
            torch.cat([f.z for f in each], dim=1),
            torch.cat([f.target_mean for f in each], dim=1),
            torch.cat([f.neighbor_mean for f in each], dim=1),
        )

    def encode_genes(self) -> Tensor:
        """Text tokens (G, d)."""
        return torch.cat([m.encode_genes() for m in self.member_networks], dim=1)

    def encode_new_genes(self, features: Tensor) -> Tensor:
        """Text tokens (K, d) of genes outside the panel, from their features (K, d_t)."""
        return torch.cat([m.encode_new_genes(features) for m in self.member_networks], dim=1)

    def decode(self, z: Tensor, genes: Tensor | None = None) -> Tensor:
        """Mean prediction of z (B, d) on the label scale, as `DKAN.decode`."""
        parts = zip(self.member_networks, self._split_members(z), strict=True)
        return self._average([m.decode(own, genes) for m, own in parts])

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Mean standardised prediction (B, K) for genes given by their tokens (K, d)."""
        parts = zip(
            self.member_networks, self._split_members(z), self._split_members(tokens), strict=True
        )
        return self._average([m.decode_gene_tokens(own, t) for m, own, t in parts])

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """The four auxiliary predictions (B, G) on the label scale, by head name."""
        parts = zip(
            self.member_networks,
            self._split_members(fused.z),
            self._split_members(fused.target_mean),
            self._split_members(fused.neighbor_mean),
            self._split_members(global_tokens),
            strict=True,
        )
        each = [m.predict_auxiliary(FusedTokens(*own), tokens) for m, *own, tokens in parts]
        return {name: self._average([heads[name] for heads in each]) for name in each[0]}

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
    def member_networks(self) -> list[DKAN]:
        return list(self.members)  # type: ignore[arg-type]

    def _split_members(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.chunk(len(self.members), dim=1)

    @staticmethod
    def _average(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values)).mean(dim=0)


def combine_members(networks: Sequence[DKAN]) -> DKAN | Ensemble:
    """One network as it is, several as an ensemble in eval mode."""
    return networks[0] if len(networks) == 1 else Ensemble(networks).eval()
