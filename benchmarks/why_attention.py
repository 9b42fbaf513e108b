"""Where the fusion looks: its attention weights, computed again beside the network.

The network itself uses a fused kernel that never forms them. They do not depend on the gene:
genes are decoded from what the fusion has already gathered. docs/why.md: why it is not shown.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_dkan.model.network.attention_blocks import CrossAttention
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.model.network.ensemble import Ensemble


def attention_weights(
    layer: CrossAttention, query: Tensor, context: Tensor, mask: Tensor | None = None
) -> Tensor:
    """(B, heads, Q, T) softmax weights of `layer(query, context, mask)`; each row sums to one."""
    q = layer.query(layer.norm(query)).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    k = layer.key_value(layer.norm(context)).chunk(2, dim=-1)[0]
    k = k.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = torch.where(mask[:, None, None, :], scores, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1)


@torch.no_grad()
def fusion_attention(
    network: DKAN | Ensemble,
    target: Tensor,
    neighbor_features: Tensor,
    neighbor_mask: Tensor,
    global_tokens: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weights of the spots' target tokens (B, T) and of their neighbours (B, K), as `fuse_tokens`
    uses them: means over heads, layers and members. Each row sums to one; zero off the slide.
    Without a trunk the one target token is made of tile features and has all weight: T is 0."""
    members = network.member_networks if isinstance(network, Ensemble) else [network]
    shares = target.chunk(len(members), dim=2), global_tokens.chunk(len(members), dim=1)
    seen = neighbor_mask.bool()
    found: list[Tensor] = []
    for member, own, tokens in zip(members, *shares, strict=True):
        near = member.neighbor_norm(member.neighbor(member.adapt(neighbor_features), seen))
        for context, mask in ((own, None), (near, seen)):
            if not context.shape[1]:
                found.append(context.new_zeros(len(context), 0))
                continue
            query, layers = tokens[:, None], []
            for attention, feed in zip(member.fusion.attention, member.fusion.feed, strict=True):
                layers.append(attention_weights(attention, query, context, mask)[:, :, 0])
                query = feed(attention(query, context, mask))
            found.append(torch.stack(layers).mean(dim=(0, 2)))
    return torch.stack(found[::2]).mean(dim=0), torch.stack(found[1::2]).mean(dim=0)
