"""The losses of DKAN and their adaptive weights (docs/method.md); the contrasts of other methods.

Rows of images (B, d) and of expression (B, d) are those of the same B spots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GROUPS, GROUP_STEPS = 18, 10  # of Gene-DML's k-means in a batch, as published for her2st


def supervised_loss(
    final: Tensor,
    auxiliary: Sequence[Tensor],
    labels: Tensor,
    alpha: float = 0.3,
    detach: bool = True,
) -> Tensor:
    """Compute the MSE of all heads, and the distillation of the auxiliary heads.

    Parameters
    ----------
    final
        (B, G) predictions of the final head, the teacher.
    auxiliary
        (B, G) predictions of each auxiliary head.
    labels
        (B, G) standardized labels.
    alpha
        Weight of the teacher against the labels in the loss of an auxiliary head.
    detach
        Whether the teacher gets no gradient from its students. The published code does not detach
        it, which pulls it towards its weaker students.
    """
    teacher = final.detach() if detach else final
    loss = F.mse_loss(final, labels)
    for head in auxiliary:
        loss = loss + alpha * F.mse_loss(head, teacher) + (1 - alpha) * F.mse_loss(head, labels)
    return loss


def correlation_loss(predicted: Tensor, labels: Tensor) -> Tensor:
    """Compute 1 - Pearson correlation over the batch's spots, averaged over genes; both (B, G).

    It measures the spatial pattern of a gene and not its level. A gene that is constant in the
    batch counts as uncorrelated.
    """
    p = predicted - predicted.mean(dim=0)
    y = labels - labels.mean(dim=0)
    norms = p.norm(dim=0) * y.norm(dim=0)
    correlation: Tensor = (p * y).sum(dim=0) / (norms + 1e-3)
    return 1 - correlation.mean()


def info_nce_loss(
    image: Tensor, expression: Tensor, temperature: float = 0.1, chunk_rows: int = 1024
) -> Tensor:
    """Compute InfoNCE of rows (R, d) against rows (R, d), with positives on the diagonal.

    One direction, exact in value and gradient, in chunks of rows: memory grows with chunk_rows * R
    and not with R * R, which is 4 GB for a batch of 128 spots and 250 genes.
    """
    a = F.normalize(image, dim=-1)
    b = F.normalize(expression, dim=-1)
    loss: Tensor = _ChunkedInfoNCE.apply(a, b, temperature, chunk_rows)
    return loss


class _ChunkedInfoNCE(torch.autograd.Function):
    """Mean over rows of logsumexp_j(a_i b_j / t) - a_i b_i / t, for unit rows."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float, chunk_rows: int) -> Tensor:
        # The gradients need the same products, so they are computed here, up to the factor that
        # `backward` gets.
        needs_grad = any(ctx.needs_input_grad[:2])
        grad_a, grad_b = torch.empty_like(a), -a
        row_sums = []
        for start in range(0, len(a), chunk_rows):
            rows = slice(start, start + chunk_rows)
            logits = ((a[rows] / temperature) @ b.T).float()
            top = logits.amax(dim=1)
            share = logits.sub_(top[:, None]).exp_()
            total = share.sum(dim=1)
            row_sums.append(top + total.log())
            if needs_grad:
                share = share.div_(total[:, None]).to(a.dtype)
                grad_a[rows] = share @ b - b[rows]
                grad_b += share.T @ a[rows]
        if needs_grad:
            ctx.save_for_backward(grad_a, grad_b)
            ctx.scale = 1 / (temperature * len(a))
        positive = (a * b).sum(dim=1).float() / temperature
        return (torch.cat(row_sums) - positive).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        scale = grads[0] * ctx.scale
        grad_a, grad_b = ctx.saved_tensors
        return grad_a * scale, grad_b * scale, None, None


def smoothed_contrast(image: Tensor, expression: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute BLEEP's loss of embeddings (B, d) and (B, d), there at a temperature of 1.

    The targets are no identity: spots whose images and expression are alike count as positives
    too, by the softmax of their mean similarity.
    """
    logits = expression @ image.T / temperature
    alike = (image @ image.T + expression @ expression.T) / 2
    targets = F.softmax(alike / temperature, dim=-1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def symmetric_contrast(image: Tensor, expression: Tensor) -> Tensor:
    """Compute mclSTExp's loss of embeddings (B, d) and (B, d), at its temperature of 1."""
    logits = expression @ image.T
    pairs = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def instance_loss(scales: Sequence[Tensor], expression: Tensor, temperature: float) -> Tensor:
    """Compute Gene-DML's first loss: the contrast of spots at each scale, as unit vectors.

    Parameters
    ----------
    scales
        Image tokens (B, d) of each scale.
    expression
        (B, d).
    """
    e = F.normalize(expression, dim=-1)
    each = [smoothed_contrast(F.normalize(image, dim=-1), e, temperature) for image in scales]
    return torch.stack(each).mean()


def instance_group_loss(image: Tensor, expression: Tensor, temperature: float) -> Tensor:
    """Compute Gene-DML's second loss: spots of one modality against groups of the other, both ways.

    Image and expression are (B, d); only their directions matter.
    """
    i, e = F.normalize(image, dim=-1), F.normalize(expression, dim=-1)
    return (group_contrast(i, e, temperature) + group_contrast(e, i, temperature)) / 2


def group_contrast(instances: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Compute the cross-entropy of the group of each spot, seen from the other modality.

    The groups are those of ``others`` (B, d), and the logits of ``instances`` (B, d) their products
    with the means of the groups. Which spot is in which group has no gradient; the means have.
    """
    groups = assign_groups(others)
    members = F.one_hot(groups).to(others.dtype)
    centers = members.T @ others / members.sum(dim=0)[:, None]
    return F.cross_entropy(instances @ centers.T / temperature, groups)


@torch.no_grad()
def assign_groups(x: Tensor, count: int = GROUPS) -> Tensor:
    """Assign rows (B, d) to groups (B,) by k-means that starts from the first rows.

    It draws no random numbers: the rows of a batch are shuffled. At most half as many groups as
    rows are made; groups that lose all rows are dropped, so that numbers run without a gap.
    """
    x = x.float()
    centers = x[: max(1, min(count, len(x) // 2))]
    for _ in range(GROUP_STEPS):
        members = F.one_hot(torch.cdist(x, centers).argmin(dim=1)).to(x.dtype)
        members = members[:, members.any(dim=0)]
        centers = members.T @ x / members.sum(dim=0)[:, None]
    return members.argmax(dim=1)


def alignment_loss(levels: Tensor) -> Tensor:
    """Compute the distance of HiFusion's levels (B, L, d) from the first, mean absolute."""
    return (levels[:, 1:] - levels[:, :1]).abs().mean()


def compute_adaptive_weights(losses: Sequence[Tensor], factors: Sequence[float]) -> list[Tensor]:
    """Compute weights proportional to factor / loss, without gradient, that sum to 1.

    All factors are 1 in the paper; the published code has 3 for the contrastive loss.
    """
    inverse = [f / loss.detach().clamp_min(1e-8) for f, loss in zip(factors, losses, strict=True)]
    total = torch.stack(inverse).sum()
    return [w / total for w in inverse]
