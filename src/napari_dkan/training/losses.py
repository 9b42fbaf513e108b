"""The two losses of DKAN and how they are weighed (dkan-method.md, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised(
    final: Tensor, auxiliary: Sequence[Tensor], labels: Tensor, alpha: float = 0.3
) -> Tensor:
    """MSE of the final head, plus each auxiliary head drawn to the labels and to the final head.

    All (B, G). The final prediction is detached where it is the teacher: otherwise it would be
    pulled towards its weaker students, as in the published code.
    """
    teacher = final.detach()
    loss = F.mse_loss(final, labels)
    for head in auxiliary:
        loss = loss + alpha * F.mse_loss(head, teacher) + (1 - alpha) * F.mse_loss(head, labels)
    return loss


def info_nce(
    image: Tensor, expression: Tensor, temperature: float = 0.1, block: int = 1024
) -> Tensor:
    """InfoNCE of rows (R, d) against rows (R, d), positives on the diagonal, one direction.

    Exact in value and gradient, but in blocks of rows: memory grows with block * R and not with
    R * R, which for a batch of 128 spots and 250 genes would be 4 GB.
    """
    a = F.normalize(image, dim=-1)
    b = F.normalize(expression, dim=-1)
    return _BlockedInfoNCE.apply(a, b, temperature, block)


class _BlockedInfoNCE(torch.autograd.Function):
    """Mean over rows of logsumexp_j(a_i b_j / t) - a_i b_i / t, for unit rows."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float, block: int) -> Tensor:
        row_sums = [
            (part @ b.T).div_(temperature).float().logsumexp(dim=1) for part in a.split(block)
        ]
        lse = torch.cat(row_sums)
        ctx.save_for_backward(a, b, lse)
        ctx.temperature, ctx.block = temperature, block
        positive = (a * b).sum(dim=1).float() / temperature
        return (lse - positive).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        a, b, lse = ctx.saved_tensors
        grad_a, grad_b = torch.empty_like(a), -a.clone()
        for start in range(0, len(a), ctx.block):
            rows = slice(start, start + ctx.block)
            logits = (a[rows] @ b.T).div_(ctx.temperature).float()
            share = logits.sub_(lse[rows, None]).exp_().to(a.dtype)
            grad_a[rows] = share @ b - b[rows]
            grad_b += share.T @ a[rows]
        scale = grads[0] / (ctx.temperature * len(a))
        return grad_a * scale, grad_b * scale, None, None


def adaptive_weights(losses: Sequence[Tensor], factors: Sequence[float]) -> list[Tensor]:
    """Weights proportional to factor / loss, without gradient, that sum to 1.

    factors : 1 for each as in the paper; the published code takes 3 for the contrastive loss.
    """
    inverse = [f / loss.detach().clamp_min(1e-8) for f, loss in zip(factors, losses, strict=True)]
    total = torch.stack(inverse).sum()
    return [w / total for w in inverse]
