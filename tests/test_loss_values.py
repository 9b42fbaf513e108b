"""The losses against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_dkan.training.fit.losses import (
    compute_adaptive_weights,
    correlation_loss,
    info_nce_loss,
    supervised_loss,
)

torch.set_num_threads(1)


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_auxiliary_head_adds_its_distance_to_the_final_head_and_to_the_labels() -> None:
    final, labels = tensor([1.0, 2.0]), tensor([0.0, 0.0])
    heads = [tensor([3.0, 2.0]), tensor([1.0, 0.0])]
    # MSE: final 5/2; heads to final 2 and 2; heads to labels 13/2 and 1/2
    wanted = 2.5 + 0.3 * (2 + 2) + 0.7 * (6.5 + 0.5)
    assert float(supervised_loss(final, heads, labels)) == pytest.approx(wanted)
    wanted = 2.5 + 0.9 * (2 + 2) + 0.1 * (6.5 + 0.5)
    assert float(supervised_loss(final, heads, labels, alpha=0.9)) == pytest.approx(wanted)
    assert float(supervised_loss(final, [], labels)) == pytest.approx(2.5)


def test_the_final_head_is_not_drawn_to_its_students_unless_asked() -> None:
    final, head, labels = tensor([1.0, 2.0]), tensor([3.0, 2.0]), tensor([0.0, 0.0])
    final.requires_grad_()
    (gradient,) = torch.autograd.grad(supervised_loss(final, [head], labels), final)
    assert gradient.tolist() == [[1.0, 2.0]]  # 2 (f - y) / 2
    loss = supervised_loss(final, [head], labels, detach=False)
    (gradient,) = torch.autograd.grad(loss, final)
    assert gradient.tolist() == [[pytest.approx(1 + 0.3 * (1 - 3)), 2.0]]


def test_the_correlation_loss_of_three_spots() -> None:
    predicted = tensor([1.0, 10.0], [2.0, 10.0], [3.0, 10.0])
    labels = tensor([2.0, 0.0], [1.0, 4.0], [6.0, 8.0])
    # centred: (-1, 0, 1) against (-1, -2, 3): 4 / (sqrt 2 sqrt 14); the other gene is constant
    first = 4 / (math.sqrt(28) + 1e-3)
    assert float(correlation_loss(predicted, labels)) == pytest.approx(1 - first / 2, rel=1e-12)


def test_info_nce_of_two_rows() -> None:
    a = tensor([2.0, 0.0], [0.0, 5.0])  # of length 1 they are the axes
    b = tensor([0.6, 0.8], [0.0, 1.0])
    first = math.log(math.exp(6.0) + 1) - 6.0
    second = math.log(math.exp(8.0) + math.exp(10.0)) - 10.0
    assert float(info_nce_loss(a, b)) == pytest.approx((first + second) / 2, rel=1e-5)
    first = math.log(math.exp(1.2) + 1) - 1.2
    second = math.log(math.exp(1.6) + math.exp(2.0)) - 2.0
    assert float(info_nce_loss(a, b, 0.5)) == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 30, 1024])
@pytest.mark.parametrize("learns", [(True, True), (True, False), (False, True), (False, False)])
def test_blocks_of_rows_change_neither_value_nor_gradient(rows: int, learns) -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(30, 6, generator=draw, dtype=torch.float64) for _ in range(2)]
    a, b = (v.requires_grad_(one) for v, one in zip(inputs, learns, strict=True))
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / 0.2
    plain = F.cross_entropy(logits, torch.arange(30))
    loss = info_nce_loss(a, b, 0.2, rows)
    assert float(loss) == pytest.approx(float(plain), rel=1e-5)
    assert loss.requires_grad == any(learns)
    if any(learns):
        leaves = [v for v in (a, b) if v.requires_grad]
        wanted = torch.autograd.grad(5 * plain, leaves)
        for one, other in zip(torch.autograd.grad(5 * loss, leaves), wanted, strict=True):
            assert one.dtype == torch.float64
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_info_nce_does_not_overflow_and_sums_in_single_precision() -> None:
    a = torch.eye(4, 8)
    assert float(info_nce_loss(a, a, 0.005)) == pytest.approx(0, abs=1e-6)
    assert float(info_nce_loss(a, -a, 0.005)) == pytest.approx(200 + math.log(3), rel=1e-5)
    half = torch.randn(12, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    half.requires_grad_()
    loss = info_nce_loss(half, torch.eye(12, 8).bfloat16(), 0.1, 5)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, half)
    assert gradient.dtype == torch.bfloat16 and torch.isfinite(gradient).all()


def test_adaptive_weights_are_shares_of_factor_over_loss() -> None:
    losses = [torch.tensor(2.0, requires_grad=True), torch.tensor(3.0), torch.tensor(6.0)]
    weights = compute_adaptive_weights(losses, [1.0, 1.0, 4.0])
    assert [float(w) for w in weights] == pytest.approx([1 / 3, 2 / 9, 4 / 9])
    assert not any(w.requires_grad for w in weights)
    less = compute_adaptive_weights([torch.tensor(0.5), torch.tensor(0.25)], [1.0, 1.0])
    assert [float(w) for w in less] == pytest.approx([1 / 3, 2 / 3])
    small = compute_adaptive_weights([torch.tensor(0.0), torch.tensor(1e-8)], [1.0, 1.0])
    assert [float(w) for w in small] == [0.5, 0.5]
    with pytest.raises(ValueError, match="zip"):
        compute_adaptive_weights(losses, [1.0, 1.0])


def test_the_losses_of_random_batches_agree_with_numpy() -> None:
    draw = np.random.default_rng(0)
    p, y = draw.normal(size=(2, 40, 5))
    wanted = 1 - np.mean([np.corrcoef(p[:, g], y[:, g])[0, 1] for g in range(5)])
    found = correlation_loss(torch.from_numpy(p), torch.from_numpy(y))
    assert float(found) == pytest.approx(wanted, abs=1e-4)
