"""Small sections of made-up numbers with a rule that can be learnt."""

from __future__ import annotations

import torch

from napari_dkan.expression.panel import Panel
from napari_dkan.training.data.prepared_section import PreparedSection
from napari_dkan.training.train_settings import TrainSettings

GENES = 12
PANEL = Panel.from_symbols(f"GENE{i}" for i in range(GENES))
QUICK = TrainSettings(
    epochs=3,
    patience=2,
    dim=16,
    text_dim=8,
    batch=12,
    trunk="test_efficientnet",
    trunk_dim=256,
    patch_px=32,
    members=1,
    depth_residual=False,
    augmentation=None,
)


def tiny_section(number: int, spots: int = 24, patient: str = "") -> PreparedSection:
    """Its labels are a rule of its stain statistics, the same in every section."""
    draw = torch.Generator().manual_seed(number)
    rule = torch.randn(104, GENES, generator=torch.Generator().manual_seed(99)) / 10
    statistics = torch.rand(spots, 25, 104, generator=draw)
    noise = 0.02 * torch.randn(spots, GENES, generator=draw)
    at = torch.arange(spots)
    return PreparedSection(
        f"S{number}",
        statistics[:, 12] @ rule + noise,
        torch.stack([at % 6, at // 6], dim=1),
        torch.randint(0, 255, (spots, 3, 32, 32), dtype=torch.uint8, generator=draw),
        statistics,
        torch.ones(spots, 25, dtype=torch.bool),
        0.7,
        200.0,
        100.0,
        patient=patient,
    )
