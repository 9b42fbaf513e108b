"""What a person chose in the panels; the defaults are meant to be right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class TargetMode(StrEnum):
    """Where to predict, as the panel words it."""

    CLICK = "Click"
    SPOTS = "Spots layer"
    REGION = "Region"
    TISSUE = "Whole tissue"


@dataclass(frozen=True)
class ContrastLimits:
    """Contrast limits: robust percentiles of each gene, or the same for all genes."""

    fixed: tuple[float, float] | None = None


@dataclass(frozen=True)
class ViewerSettings:
    """Of one session; it starts with those of napari's preferences."""

    where: TargetMode = TargetMode.CLICK
    device: str = "auto"
    encoder_weights: Path | None = None
    dense: bool = False
    tissue_only: bool = True
    store: bool = True  # keep tiles on disk for the next visit
    warm_up: bool = True  # compute around the view before it is asked for
    hatch: bool = True  # tiles that should not be relied on are hatched
    unproven: bool = False  # genes by their text even where the card has no proof of them
    colormap: str = "magma"
    opacity: float = 0.65
    limits: ContrastLimits = ContrastLimits()
