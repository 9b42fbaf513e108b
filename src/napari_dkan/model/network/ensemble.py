"""An ensemble of networks with the interface of one network; it predicts their mean.

It also carries a linear path beside the mean, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .dkan_network import DKAN
from .linear_path import LinearPath
from .network_config import NetworkConfig
from .network_interface import ExpressionNetwork, FusedTokens


class Ensemble(ExpressionNetwork):
    """E members of one shape, trained on the same panel with different seeds.

    Every token consists of the members' tokens side by side: d of its tokens is E times the
    members' width. Features have the width of one member, since the members share a tile encoder.

    With a linear path, its R features follow the members' in fused tokens (B, D + R), and the
    prediction for genes of the panel is that of the path; the auxiliary heads and genes outside
    the panel are the members' alone.

    Raises CheckpointError if the members are not of one shape.
    """

    def __init__(
        self, members: Sequence[ExpressionNetwork], linear: LinearPath | None = None
    ) -> None:
        super().__init__()
        if len({m.config for m in members}) != 1:
            raise CheckpointError("The members of an ensemble must have one shape.")
        self.members = nn.ModuleList(members)
        self.linear = linear
        self.config: NetworkConfig = replace(
            members[0].config,
            members=len(members),
            linear=0 if linear is None else linear.n_features,
        )

    @property
    def draws_samples(self) -> bool:  # type: ignore[override]
        return self.member_networks[0].draws_samples

    @property
    def label_mean(self) -> Tensor:  # type: ignore[override]
        return self._average([m.label_mean for m in self.member_networks])

    @property
    def label_std(self) -> Tensor:  # type: ignore[override]
        return self._average([m.label_std for m in self.member_networks])

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """See `DKAN.standardize_by_slide`."""
        return self.member_networks[0].standardize_by_slide(features, slide_features)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """See `DKAN.encode_global`; slide_features have the width of one member."""
        each = [
            m.encode_global(slide_features, positions, query_rows) for m in self.member_networks
        ]
        return torch.cat(each, dim=1)

    def encode_target(self, patches: Tensor) -> Tensor:
        """See `DKAN.encode_target`."""
        return torch.cat([m.encode_target(patches) for m in self.member_networks], dim=2)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """See `DKAN.fuse_tokens`."""
        each = [
            member.fuse_tokens(own_target, neighbor_features, neighbor_mask, own_global)
            for member, own_target, own_global in zip(
                self.member_networks,
                torch.chunk(target, len(self.members), dim=2),
                self._split_members(global_tokens),
                strict=True,
            )
        ]
        z = [f.z for f in each]
        if self.linear is not None:
            z.append(self.linear.encode(neighbor_features, neighbor_mask))
        return FusedTokens(
            torch.cat(z, dim=1),
            torch.cat([f.target_mean for f in each], dim=1),
            torch.cat([f.neighbor_mean for f in each], dim=1),
        )

    def encode_genes(self) -> Tensor:
        """See `DKAN.encode_genes`."""
        return torch.cat([m.encode_genes() for m in self.member_networks], dim=1)

    def encode_new_genes(self, features: Tensor) -> Tensor:
        """See `DKAN.encode_new_genes`."""
        return torch.cat([m.encode_new_genes(features) for m in self.member_networks], dim=1)

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """Return the mean of the members' `DKAN.decode`, or what the linear path makes of it."""
        tokens = (
            [None] * len(self.members) if gene_tokens is None else self._split_members(gene_tokens)
        )
        parts = zip(self.member_networks, self._split_members(z), tokens, strict=True)
        mean = self._average([m.decode(own_z, genes, own) for m, own_z, own in parts])
        return mean if self.linear is None else self.linear(mean, z, genes)

    def decode_with_spread(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See `ExpressionNetwork.decode_with_spread`: within and between the members."""
        tokens = (
            [None] * len(self.members) if gene_tokens is None else self._split_members(gene_tokens)
        )
        parts = zip(self.member_networks, self._split_members(z), tokens, strict=True)
        each = [m.decode_with_spread(own_z, genes, own) for m, own_z, own in parts]
        stacked = torch.stack([values for values, _ in each])
        within = [spread.square() for _, spread in each if spread is not None]
        mean, spread = stacked.mean(dim=0), None
        if within or len(each) > 1:
            variance = stacked.var(dim=0, correction=0)
            spread = (variance + self._average(within) if within else variance).sqrt()
        if self.linear is None:
            return mean, spread
        return self.linear(mean, z, genes), self.linear.scale_spread(spread, genes)

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Return the mean of the members' `DKAN.decode_gene_tokens`."""
        parts = zip(
            self.member_networks, self._split_members(z), self._split_members(tokens), strict=True
        )
        return self._average([m.decode_gene_tokens(own_z, own) for m, own_z, own in parts])

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Return the mean of the members' `DKAN.predict_auxiliary`."""
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

    @property
    def member_networks(self) -> list[ExpressionNetwork]:
        return cast(list[ExpressionNetwork], list(self.members))

    def _split_members(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Split tokens by member; what follows in fused tokens is of the linear path."""
        return torch.chunk(tensor[:, : self.config.members_dim], len(self.members), dim=1)

    @staticmethod
    def _average(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values)).mean(dim=0)


def combine_members(
    networks: Sequence[ExpressionNetwork], linear: LinearPath | None = None
) -> ExpressionNetwork:
    """Combine networks and a linear path in eval mode; a single network alone is unchanged."""
    if len(networks) == 1 and linear is None:
        return networks[0]
    return Ensemble(networks, linear).eval()


def list_members(network: ExpressionNetwork) -> list[ExpressionNetwork]:
    """List the members of an ensemble, or the single network."""
    return network.member_networks if isinstance(network, Ensemble) else [network]


def list_dkan_members(network: ExpressionNetwork) -> list[DKAN]:
    """List the members, which must be DKAN networks.

    Raises
    ------
    CheckpointError
        For a network of another method.
    """
    members = list_members(network)
    dkan = [m for m in members if isinstance(m, DKAN)]
    if len(dkan) < len(members):
        raise CheckpointError(
            f"This checkpoint is of the method {network.config.method}, and only DKAN checkpoints "
            "can be fine-tuned or given new genes; choose a DKAN checkpoint."
        )
    return dkan


def get_linear_path(network: ExpressionNetwork) -> LinearPath | None:
    """Return the linear path of an ensemble; None for a single network or without one."""
    return network.linear if isinstance(network, Ensemble) else None
