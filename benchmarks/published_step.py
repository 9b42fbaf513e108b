"""The published training step, written down literally: what our own step is compared with.

As in docs/method.md, sections 3 and 4, with none of the short cuts of its section 6: gene text
goes through its encoder once per spot, the dual path attends to its single key with queries,
keys and a softmax, every spot-gene row keeps all its activations, and the contrastive loss is a
cross entropy over the whole (B*G) x (B*G) matrix of similarities. The trunk, the neighbour, the
global and the fusion encoder are ours, since there is nothing to choose there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_dkan.model.network.attention_blocks import (
    FeedForward,
    SelfAttention,
    SingleKeyTransformer,
)
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.training.data.section_batches import TrainingBatch
from napari_dkan.training.train_settings import TrainSettings


class PublishedStep(nn.Module):
    """The loss of one batch with the weights of a network of ours; no dropout.

    Queries and keys of the dual path, which ours does not keep, are drawn at random: they have
    no effect, but cost what they cost.
    """

    def __init__(self, network: DKAN, settings: TrainSettings) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self.image_queries = queries_of(network.image)
        self.expression_queries = queries_of(network.expression)

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and its supervised and contrastive parts."""
        net, s = self.network, self.settings
        labels = net.from_label_scale(batch["labels"])
        spots = len(labels)
        context = net.encode_global(batch["slide_features"], batch["positions"])[batch["rows"]]
        fused = net.fuse(
            batch["patches"], batch["neighbor_features"], batch["neighbor_mask"], context
        )
        text = net.gene_features.expand(spots, -1, -1)
        for attention, feed in zip(net.text.attention, net.text.feed, strict=True):
            text = feed_forward(feed, self_attention(attention, text))
        text = net.text_fit(text)
        image = dual_path(
            net.image, self.image_queries, net.config.image.heads, text, fused.z[:, None]
        )
        token = net.expression_encoder(labels)[:, None]
        expression = dual_path(
            net.expression, self.expression_queries, net.config.expression.heads, text, token
        )

        final = net.head(image).squeeze(-1)
        supervised = F.mse_loss(final, labels)
        for head in (
            net.head_fused(fused.z),
            net.head_target(fused.target_mean),
            net.head_neighbor(fused.neighbor_mean),
            net.head_global(context),
        ):
            distilled = F.mse_loss(head, final.detach())
            supervised = supervised + s.alpha * distilled + (1 - s.alpha) * F.mse_loss(head, labels)

        a = F.normalize(image.flatten(0, 1), dim=-1)
        b = F.normalize(expression.flatten(0, 1), dim=-1)
        similarity = a @ b.T / s.temperature
        contrastive = F.cross_entropy(similarity, torch.arange(len(a), device=a.device))

        inverse = torch.stack(
            [1 / supervised.detach(), s.contrastive_factor / contrastive.detach()]
        )
        weights = inverse / inverse.sum()
        # our step takes this twice, see DKANModule
        loss = 2 * (weights[0] * supervised + weights[1] * contrastive)
        return loss, supervised, contrastive


def queries_of(stack: SingleKeyTransformer) -> nn.ModuleList:
    """A query and a key projection for each layer of a dual path."""
    layers = nn.ModuleList()
    for attention in stack.attention:
        out, into = attention.value.weight.shape
        layers.append(nn.ModuleList(nn.Linear(into, out, bias=False) for _ in range(2)))
    return layers.to(next(stack.parameters()).device)


def dual_path(
    stack: SingleKeyTransformer, queries: nn.ModuleList, heads: int, x: Tensor, token: Tensor
) -> Tensor:
    """Gene rows (B, G, d) attend to one token per spot (B, 1, d)."""
    for attention, feed, (query, key) in zip(stack.attention, stack.feed, queries, strict=True):
        normed = attention.norm(token)
        q, k, v = query(attention.norm(x)), key(normed), attention.value(normed)
        x = x + attention.out(_attention(q, k, v, heads))
        x = feed_forward(feed, x)
    return x


def self_attention(layer: SelfAttention, x: Tensor) -> Tensor:
    q, k, v = layer.qkv(layer.norm(x)).chunk(3, dim=-1)
    return x + layer.out(_attention(q, k, v, layer.heads))


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    share = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return (share @ v).transpose(1, 2).flatten(2)


def feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
    return x + layer.contract(F.gelu(layer.expand(layer.norm(x))))
