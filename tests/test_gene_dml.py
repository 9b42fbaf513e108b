"""Gene-DML: its two losses against literal forms, its groups, and what the losses are of."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dkan.model.methods.gene_dml import GeneDML
from napari_dkan.model.methods.method_configs import GeneDMLConfig
from napari_dkan.model.network.network_interface import FusedTokens
from napari_dkan.training.fit.losses import (
    GROUP_STEPS,
    GROUPS,
    assign_groups,
    group_contrast,
    instance_group_loss,
    instance_loss,
)
from napari_dkan.training.fit.method_modules import make_lightning_module
from napari_dkan.training.network_shapes import make_network_config
from napari_dkan.training.train_settings import (
    SettingsPreset,
    TrainSettings,
    make_preset_settings,
)

T = 0.1
SPOTS, GENES, DIM = 44, 6, 8


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(x: Tensor) -> list[Tensor]:
    return [row / math.sqrt(float((row * row).sum())) for row in x]


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in logits)
    return [math.exp(v) / total for v in logits]


def literal_instance_loss(scales: list[Tensor], expression: Tensor) -> float:
    """For each scale and spot, cross-entropy towards the softmax of the mean similarities."""
    losses, e, n = [], unit(expression), len(expression)
    for image in scales:
        i = unit(image)
        wanted = [
            softmax([float(i[a] @ i[b] + e[a] @ e[b]) / 2 / T for b in range(n)]) for a in range(n)
        ]
        for a in range(n):
            by_expression = softmax([float(e[a] @ i[b]) / T for b in range(n)])
            by_image = softmax([float(e[b] @ i[a]) / T for b in range(n)])
            for b in range(n):
                losses.append(-wanted[a][b] * math.log(by_expression[b]) / 2)
                losses.append(-wanted[b][a] * math.log(by_image[b]) / 2)
    return sum(losses) / (n * len(scales))


def literal_groups(rows: list[Tensor]) -> list[list[int]]:
    """Members of each group: Lloyd's steps, one row at a time."""
    centers = rows[: min(GROUPS, len(rows) // 2)]
    for _ in range(GROUP_STEPS):
        members: list[list[int]] = [[] for _ in centers]
        for a, row in enumerate(rows):
            distances = [float(((row - c) ** 2).sum()) for c in centers]
            members[distances.index(min(distances))].append(a)
        members = [group for group in members if group]
        centers = [sum(rows[a] for a in group) / len(group) for group in members]
    return members


def literal_group_loss(image: Tensor, expression: Tensor) -> float:
    i, e, losses = unit(image), unit(expression), []
    for instances, others in ((i, e), (e, i)):
        groups = literal_groups(others)
        for a, instance in enumerate(instances):
            logits = [
                sum(float(instance @ others[b]) for b in group) / len(group) / T for group in groups
            ]
            (own,) = [g for g, group in enumerate(groups) if a in group]
            losses.append(-math.log(softmax(logits)[own]))
    return sum(losses) / len(losses)


def test_both_losses_and_their_sum_are_the_literal_ones() -> None:
    target, neighbor, context, z, expression = draw(5, SPOTS, DIM)
    scales = [target, 2 * neighbor, context]
    by_spot = literal_instance_loss(scales, expression)
    by_group = literal_group_loss(z, expression)
    assert float(instance_loss(scales, expression, T)) == pytest.approx(by_spot)
    assert float(instance_group_loss(z, expression, T)) == pytest.approx(by_group)
    # in the training: squared error of the head, and both by the weight of the settings
    network = GeneDML(GeneDMLConfig(GENES, dim=DIM, trunk="none", trunk_dim=DIM)).double().eval()
    settings = replace(TrainSettings(method="genedml"), contrastive_factor=0.3, temperature=T)
    labels = draw(SPOTS, GENES, seed=1)
    with torch.no_grad():
        loss = make_lightning_module(network, settings).compute_method_loss(
            FusedTokens(z, target, neighbor), context, labels, None
        )
        encoded = network.expression_encoder(labels)
        error = F.mse_loss(network.decode(z), labels)
    by_spot = literal_instance_loss([target, neighbor, context], encoded)
    wanted = float(error) + 0.3 * (by_spot + literal_group_loss(z, encoded))
    assert float(loss) == pytest.approx(wanted, rel=1e-6)


def test_a_spot_is_drawn_to_the_group_of_the_other_modality_that_it_belongs_to() -> None:
    expression = F.normalize(draw(SPOTS, DIM), dim=1)
    image = F.normalize(draw(SPOTS, DIM, seed=1), dim=1)
    groups = assign_groups(expression)
    center = expression[groups == groups[7]].mean(dim=0)
    other = expression[groups == groups[groups != groups[7]][0]].mean(dim=0)
    losses = []
    for goal in (other, image[7], center):
        moved = image.clone()
        moved[7] = F.normalize(goal, dim=0)
        losses.append(float(group_contrast(moved, expression, T)))
    assert losses[0] > losses[1] > losses[2]
    # downhill is towards the own group, for expression among groups of images as well
    for instances, others in ((image, expression), (expression, image)):
        instances = instances.clone().requires_grad_()
        groups = assign_groups(others)
        group_contrast(instances, others, T).backward()
        for row, gradient in enumerate(instances.grad):
            own = others[groups == groups[row]].mean(dim=0)
            rest = torch.stack([others[groups == g].mean(dim=0) for g in groups.unique()])
            assert gradient @ (own - rest.mean(dim=0)) < 0


def test_both_directions_count_alike() -> None:
    image, expression = draw(2, SPOTS, DIM)
    one, other = (
        group_contrast(*(F.normalize(x, dim=1) for x in pair), T)
        for pair in ((image, expression), (expression, image))
    )
    assert abs(float(one - other)) > 1e-3
    torch.testing.assert_close(instance_group_loss(image, expression, T), (one + other) / 2)


def test_groups_are_found_without_chance_and_have_no_gaps() -> None:
    corners = 5 * torch.eye(3, DIM, dtype=torch.float64)
    true = torch.arange(30) % 3
    x = corners[true] + 0.1 * draw(30, DIM)
    groups = assign_groups(x, count=3)
    assert torch.equal(groups, true) and torch.equal(assign_groups(x, count=3), groups)
    # rows that are the same are one group; of few rows there are half as many groups as rows
    twice = torch.tensor([0.0, 0.0, 9.0, 9.0, 9.0, 9.0])[:, None]
    assert assign_groups(twice).tolist() == [0, 0, 1, 1, 1, 1]
    assert len(assign_groups(draw(10, 2)).unique()) <= 5
    assert float(instance_group_loss(draw(1, 4), draw(1, 4, seed=1), T)) == 0
    assert torch.isfinite(instance_group_loss(torch.zeros(3, 4), torch.zeros(3, 4), T))


def test_the_published_preset_has_the_weights_of_the_paper() -> None:
    small = make_network_config(TrainSettings(method="genedml"), 250)
    settings = replace(make_preset_settings(SettingsPreset.published), method="genedml")
    config = make_network_config(settings, 250)
    assert isinstance(small, GeneDMLConfig) and isinstance(config, GeneDMLConfig)
    assert (small.expression_dropout, small.dim) == (0.3, 64)
    assert (config.dim, config.global_.depth, settings.contrastive_factor) == (1024, 5, 1.0)
