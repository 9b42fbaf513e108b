"""The losses of DKAN and their adaptive weights (dkan-method.md, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised_loss(
    final: Tensor,
    auxiliary: Sequence[Tensor],
    labels: Tensor,
    alpha: float = 0.3,
    detach: bool = True,
) -> Tensor:
    """MSE of the final head, plus each auxiliary head drawn to the labels and to the final head.

    All (B, G). The final prediction is detached where it is the teacher: otherwise it is pulled
    towards its weaker students, as in the published code (detach=False).
    """
    teacher = final.detach() if detach else final
    loss = F.mse_loss(final, labels)
    for head in auxiliary:
        loss = loss + alpha * F.mse_loss(head, teacher) + (1 - alpha) * F.mse_loss(head, labels)
    return loss


def correlation_loss(predicted: Tensor, labels: Tensor) -> Tensor:
    """1 - Pearson correlation over the batch's spots, mean over genes; both (B, G).

    What a map is judged by: the order of the spots, whatever the gene's level. A gene that is
    constant in the batch counts as uncorrelated.
    """
    p = predicted - predicted.mean(dim=0)
    y = labels - labels.mean(dim=0)
    norms = p.norm(dim=0) * y.norm(dim=0)
    return 1 - ((p * y).sum(dim=0) / (norms + 1e-3)).mean()


def info_nce_loss(
    image: Tensor, expression: Tensor, temperature: float = 0.1, chunk_rows: int = 1024
) -> Tensor:
    """InfoNCE of rows (R, d) against rows (R, d), positives on the diagonal, one direction.

    Exact in value and gradient, but in blocks of rows: memory grows with block * R and not with
    R * R, which for a batch of 128 spots and 250 genes would be 4 GB.
    """
    a = F.normalize(image, dim=-1)
    b = F.normalize(expression, dim=-1)
    return _ChunkedInfoNCE.apply(a, b, temperature, chunk_rows)


class _ChunkedInfoNCE(torch.autograd.Function):
    """Mean over rows of logsumexp_j(a_i b_j / t) - a_i b_i / t, for unit rows."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float, block: int) -> Tensor:
        # The gradients are taken along: they need the same products, and differ from those of
        # any multiple of the loss by that factor only.
        wanted = any(ctx.needs_input_grad[:2])
        grad_a, grad_b = torch.empty_like(a), -a
        row_sums = []
        for start in range(0, len(a), block):
            rows = slice(start, start + block)
            logits = ((a[rows] / temperature) @ b.T).float()
            top = logits.amax(dim=1)
            share = logits.sub_(top[:, None]).exp_()
            total = share.sum(dim=1)
            row_sums.append(top + total.log())
            if wanted:
                share = share.div_(total[:, None]).to(a.dtype)
                grad_a[rows] = share @ b - b[rows]
                grad_b += share.T @ a[rows]
        if wanted:
            ctx.save_for_backward(grad_a, grad_b)
            ctx.scale = 1 / (temperature * len(a))
        positive = (a * b).sum(dim=1).float() / temperature
        return (torch.cat(row_sums) - positive).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        scale = grads[0] * ctx.scale
        grad_a, grad_b = ctx.saved_tensors
        return grad_a * scale, grad_b * scale, None, None


def compute_adaptive_weights(losses: Sequence[Tensor], factors: Sequence[float]) -> list[Tensor]:
    """Weights proportional to factor / loss, without gradient, that sum to 1.

    factors : 1 for each as in the paper; the published code takes 3 for the contrastive loss.
    """
    inverse = [f / loss.detach().clamp_min(1e-8) for f, loss in zip(factors, losses, strict=True)]
    total = torch.stack(inverse).sum()
    return [w / total for w in inverse]
