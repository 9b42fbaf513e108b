"""Level and spread of a section's labels, set before anything is learnt.

Sections differ in depth, and so in the level and the spread of every gene. That is a few numbers,
which need no gradient and change no correlation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...model.network import DKAN
from .lesson import LabelMatrix

PRIOR_SPOTS = 30  # spots that the old level counts for
SLOPE_LIMITS = (0.3, 3.0)  # at least and at most times the old


def recalibrate_mean_std(network: DKAN, predicted: Sequence[LabelMatrix], measured: Sequence[LabelMatrix]) -> None:
    """Set label_mean and label_std by what a network predicted (n, G) and what was measured there.

    A gene's level moves by the mean error over the spots, as if `PRIOR` more spots had none; the
    spread of all genes changes by one factor, the slope of measured on predicted. Genes that are
    measured nowhere (NaN) stay.
    """
    p, y = (np.concatenate(v).astype(np.float64) for v in (predicted, measured))
    known = ~np.isnan(y)
    count = known.sum(axis=0)
    error = np.where(known, y - p, 0).sum(axis=0) / (count + PRIOR_SPOTS)
    shown = np.where(known, p, 0).sum(axis=0) / np.maximum(count, 1)
    centre = np.where(known, y, 0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(known, p - shown, 0)
    both = (apart * np.where(known, y - centre, 0)).sum()
    slope = float(np.clip(both / max((apart**2).sum(), 1e-9), *SLOPE_LIMITS))
    factor = torch.from_numpy(np.where(count > 0, slope, 1.0)).float()
    middle, moved = (torch.from_numpy(v).float() for v in (shown, error))
    network.label_mean.copy_(factor * network.label_mean + (1 - factor) * middle + moved)
    network.label_std.mul_(factor)


def initialize_mean_std(
    network: DKAN, genes: slice, predicted: Sequence[LabelMatrix], measured: Sequence[LabelMatrix]
) -> None:
    """Level and spread of genes that have none yet: those of the measured (n, G) labels."""
    p, y = (np.concatenate(v)[:, genes].astype(np.float64) for v in (predicted, measured))
    shown = (torch.from_numpy(p).float() - network.label_mean[genes]) / network.label_std[genes]
    spread = torch.from_numpy(y.std(axis=0)).float().clamp_min(0.02)
    network.label_std[genes] = spread
    network.label_mean[genes] = torch.from_numpy(y.mean(axis=0)).float() - spread * shown.mean(0)
