"""One whole training step against the published one taken literally, at a tiny size."""

from __future__ import annotations

import runpy
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from napari_dkan.model.network.activation_checkpointing import refine_gene_rows
from napari_dkan.model.network.attention_blocks import SingleKeyTransformer
from napari_dkan.model.network.dkan_config import DKANConfig
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.model.network.network_config import StackConfig
from napari_dkan.training.data.section_batches import TrainingBatch
from napari_dkan.training.fit.lightning_module import DKANLightningModule
from napari_dkan.training.fit.losses import info_nce_loss
from napari_dkan.training.train_settings import TrainSettings

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "published_step.py"
ALL_ROWS = TrainSettings(
    contrastive_factor=1.0, correlation=0.0, genes_per_step=None, contrastive_rows=None
)
GENES, DIM, SPOTS = 7, 32, 6


@pytest.fixture(scope="module")
def published_step() -> Any:
    return runpy.run_path(str(SCRIPT))["PublishedStep"]


@pytest.fixture(scope="module")
def network() -> DKAN:
    torch.manual_seed(0)
    stack = StackConfig(depth=2, heads=4, ratio=4.0, dropout=0.0)
    config = DKANConfig(
        genes=GENES,
        dim=DIM,
        text_dim=24,
        expression_dropout=0.0,
        fusion=stack,
        global_=stack,
        neighbor=stack,
        image=replace(stack, depth=3),
        expression=stack,
        text=stack,
    )
    network = DKAN(config, torch.randn(GENES, 24)).train()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" in name:  # else they are all 1 and 0, and prove little
                weight.add_(0.3 * torch.randn_like(weight))
        network.label_mean.normal_()
        network.label_std.uniform_(0.5, 2)
    return network


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    torch.manual_seed(1)
    cells = torch.arange(10)
    mask = torch.ones(SPOTS, 25)
    mask[0, :5] = 0
    return {
        "patches": torch.randn(SPOTS, 3, 64, 64),
        "slide_features": torch.randn(10, DIM),
        "positions": torch.stack([cells // 4, cells % 4], dim=1),
        "neighbor_features": torch.randn(SPOTS, 25, DIM),
        "neighbor_mask": mask,
        "rows": torch.tensor([7, 0, 3, 9, 4, 1]),
        "labels": torch.rand(SPOTS, GENES),
    }


# 15 rows are two spots of seven genes at a time, 3 not even one
@pytest.mark.parametrize("rows", [None, 3, 15, 10_000])
@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_training_step_equals_the_published_step(
    published_step: Any, network: DKAN, batch: TrainingBatch, rows: int | None
) -> None:
    settings = replace(ALL_ROWS, checkpoint_rows=rows)
    weights = dict(network.named_parameters())
    literal = published_step(network, settings)(batch)[0]
    wanted = torch.autograd.grad(literal, list(weights.values()))
    loss = DKANLightningModule(network, settings).training_step(batch, 0)
    got = torch.autograd.grad(loss, list(weights.values()))
    assert loss.item() == pytest.approx(literal.item(), abs=1e-4)
    for name, one, other in zip(weights, got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3, msg=f"{name} differs")


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_recomputed_batches_update_running_statistics_once(
    network: DKAN, batch: TrainingBatch
) -> None:
    counts = []
    for rows in (None, 15):
        fresh = deepcopy(network)
        DKANLightningModule(fresh, replace(ALL_ROWS, checkpoint_rows=rows)).training_step(
            batch, 0
        ).backward()
        counts.append(dict(fresh.named_buffers()))
    assert any("running_mean" in name for name in counts[0])
    for name, plain in counts[0].items():
        torch.testing.assert_close(counts[1][name], plain, msg=f"{name} differs")


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(("depth", "heads"), [(0, 4), (1, 1), (2, 4)])
def test_gene_rows_in_chunks_equal_all_rows(depth: int, heads: int, dropout: float) -> None:
    torch.manual_seed(0)
    stack = StackConfig(depth=depth, heads=heads, ratio=2.0, dropout=dropout)
    rows = SingleKeyTransformer(16, 32, stack).double()
    genes = torch.randn(1, 5, 16, dtype=torch.float64, requires_grad=True)
    token = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    leaves = [genes, token, *rows.parameters()]

    def run(parts: int | None) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        out = rows(genes, token) if parts is None else refine_gene_rows(rows, genes, token, parts)
        return out, *torch.autograd.grad(out.pow(3).sum(), leaves, allow_unused=True)

    # one part draws dropout in the order of the whole
    for one, other in zip(run(20), run(None), strict=True):
        torch.testing.assert_close(one, other)


def test_chunked_info_nce_in_single_precision_and_at_low_temperature() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(300, 16, requires_grad=True) for _ in range(2))
    for temperature in (0.1, 0.005):
        logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature
        plain = F.cross_entropy(logits, torch.arange(300))
        loss = info_nce_loss(a, b, temperature, chunk_rows=64)
        assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
        for one, other in zip(
            torch.autograd.grad(loss, (a, b)), torch.autograd.grad(plain, (a, b)), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_mixed_precision_is_close_to_float32(network: DKAN, batch: TrainingBatch) -> None:
    module = DKANLightningModule(network, replace(ALL_ROWS, checkpoint_rows=15))
    weights = list(network.parameters())
    plain = module.training_step(batch, 0)
    wanted = torch.autograd.grad(plain, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.training_step(batch, 0)
    got = torch.autograd.grad(loss, weights)
    assert loss.item() == pytest.approx(plain.item(), rel=0.02)
    apart, size = (
        torch.stack([g.norm() for g in grads]).norm()
        for grads in ([a - b for a, b in zip(got, wanted, strict=True)], wanted)
    )
    assert apart < 0.1 * size
