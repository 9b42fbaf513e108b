"""Self-supervised pre-training: a small tile encoder that learns from the sections' own tiles.

VICReg (Bardes et al., ICLR 2022): two crops at nearly the same place, mirrored, turned and in
other stains, are to have the same embedding, while each of its numbers keeps a spread and no two
say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from ablation_sections import EARLIER, EARLIER_VIEWS, SIDE, Bench, changes
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_dkan.atomic_write import atomic_write
from napari_dkan.model.network.branch_encoders import TargetTrunk
from napari_dkan.model.ridge_regression import compute_multi_scale_features
from napari_dkan.training.baselines import Float64Array, fit_ridge_cv
from napari_dkan.training.data.augmentation import StainTransform
from napari_dkan.training.data.prepared_section import (
    NEIGHBOR_GRID,
    PreparedSection,
    fit_section_encoder,
)
from napari_dkan.training.data.section_batches import normalize_patches

EPOCHS = 6  # of as many pairs of crops as there are tiles
BATCH = 128
NEAR = 8  # px between the two crops of a pair, 22 um
EMBEDDING = 256
Pixels = NDArray[np.uint8]


def pretrained(bench: Bench, training: Sequence[str]) -> dict[str, Tensor]:
    """Weights of the network's own trunk, learnt from the windows of these sections alone."""
    path = bench.cache / f"vicreg-{EPOCHS}-{''.join(training)}.pt"
    if not path.is_file():
        windows = np.concatenate([bench.windows(n) for n in training])
        with atomic_write(path) as temporary:
            torch.save(_vicreg(windows), temporary)
    return torch.load(path, weights_only=True)


@dataclass(frozen=True)
class TileRidge:
    """The ridge baseline at three scales, on stain statistics, learnt features or both."""

    name: str
    what: str
    stain: bool
    learned: bool
    against: str = "ridge"

    def run(
        self, bench: Bench, training: Sequence[str], test: Sequence[str]
    ) -> dict[str, list[NDArray[np.floating]]]:
        looks, dim = bench.looks(), EARLIER.dim
        parts: list[Callable[[PreparedSection, Pixels], Tensor]] = []
        if self.stain:
            encoder = fit_section_encoder([looks[n].plain for n in training], dim, EARLIER.patch_um)
            parts.append(lambda section, window: encoder.project(section.statistics))
        if self.learned:
            trunk = _trunk(pretrained(bench, training))
            known = [_features(trunk, bench.windows(n)) for n in training]
            narrow = _principal(torch.cat(known).flatten(0, 1), dim)
            parts.append(lambda section, window: narrow(_features(trunk, window)))

        def inputs(section: PreparedSection, window: Pixels) -> Float64Array:
            features = [part(section, window) for part in parts]
            return compute_multi_scale_features(
                torch.cat(features, dim=2).numpy(), section.mask.numpy()
            )

        ridge = fit_ridge_cv(
            [inputs(looks[n].plain, bench.windows(n)) for n in training],
            [looks[n].plain.labels.numpy() for n in training],
        )
        out: dict[str, list[NDArray[np.floating]]] = {}
        for name in test:
            window = bench.windows(name)
            windows = [window, *(change(window) for change in changes(name))]
            pairs = zip(looks[name].all, windows, strict=True)
            out[name] = [ridge.predict(inputs(*pair)) for pair in pairs]
        return out


def _vicreg(windows: Pixels) -> dict[str, Tensor]:
    torch.manual_seed(EARLIER.seed)
    random = np.random.default_rng(EARLIER.seed)
    trunk = TargetTrunk(EARLIER.trunk)
    head = nn.Sequential(
        nn.Linear(trunk.channels, EMBEDDING),
        nn.BatchNorm1d(EMBEDDING),
        nn.ReLU(),
        nn.Linear(EMBEDDING, EMBEDDING),
    )
    steps = EPOCHS * len(windows) * NEIGHBOR_GRID**2 // BATCH
    optimiser = torch.optim.AdamW(
        [*trunk.parameters(), *head.parameters()], 2e-3, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        one, other = _crops(windows, random)
        tokens = trunk(normalize_patches(torch.cat([one, other])))
        loss = vicreg_loss(*head(tokens.mean(dim=1)).chunk(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return trunk.state_dict()


def vicreg_loss(a: Tensor, b: Tensor) -> Tensor:
    """Two embeddings (B, D) of the same places: invariance 25, variance 25, covariance 1."""
    loss = 25 * F.mse_loss(a, b)
    for x in (a, b):
        x = x - x.mean(dim=0)
        loss = loss + 12.5 * F.relu(1 - (x.var(dim=0) + 1e-4).sqrt()).mean()
        covariance = x.T @ x / (len(x) - 1)
        loss = loss + (covariance.square().sum() - covariance.diagonal().square().sum()) / len(
            covariance
        )
    return loss


def _crops(windows: Pixels, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of pairs, each (B, 3, 56, 56) uint8."""
    pairs: tuple[list[Pixels], list[Pixels]] = ([], [])
    last = windows.shape[1] - SIDE
    for window in windows[random.integers(len(windows), size=BATCH)]:
        place = random.integers(last + 1, size=2)
        for crops in pairs:
            y, x = np.clip(place + random.integers(-NEAR, NEAR + 1, size=2), 0, last)
            crop = window[y : y + SIDE, x : x + SIDE]
            crop = np.rot90(crop, int(random.integers(4)))[:: random.choice([1, -1])]
            crops.append(StainTransform.sample(EARLIER_VIEWS, random)(crop))
    one, other = (torch.from_numpy(np.stack(c)).permute(0, 3, 1, 2) for c in pairs)
    return one, other


def _trunk(weights: dict[str, Tensor]) -> TargetTrunk:
    trunk = TargetTrunk(EARLIER.trunk)
    trunk.load_state_dict(weights)
    return trunk.eval()


@torch.no_grad()
def _features(trunk: TargetTrunk, windows: Pixels) -> Tensor:
    """(N, 25, channels) of the tiles of windows (N, 280, 280, 3)."""
    out = []
    for window in windows:
        tiles = window.reshape(NEIGHBOR_GRID, SIDE, NEIGHBOR_GRID, SIDE, 3).transpose(0, 2, 4, 1, 3)
        tiles = torch.from_numpy(tiles.reshape(NEIGHBOR_GRID**2, 3, SIDE, SIDE))
        out.append(trunk(normalize_patches(tiles)).mean(dim=1))
    return torch.stack(out)


def _principal(known: Tensor, dim: int) -> Callable[[Tensor], Tensor]:
    """Made as narrow as the stain encoder's features are, and scaled as they are."""
    mean, std = known.mean(dim=0), known.std(dim=0).clamp_min(1e-4)
    scaled = ((known - mean) / std).double()
    spread, axes = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
    spread, axes = spread.flip(0)[:dim], axes.flip(1)[:, :dim]
    projection = (axes * spread.clamp_min(1e-6).pow(-0.25)).float()
    return lambda features: (features - mean) / std @ projection
