"""What the counts of a measured section allow to judge: its depth, ceiling and mean profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..expression.label_scale import PanelCounts
from ..expression.panel import Panel
from .depth_metrics import (
    Float64Array,
    depth_alone_pcc,
    depth_partial_pcc,
    deviance_explained,
    proportions_from_labels,
)
from .metrics import FloatingArray, nanmean
from .noise_ceiling import NoiseCeiling, compute_noise_ceiling

# A section is shallow below this share of the lowest median total of the training sections.
SHALLOW_SHARE = 1 / 3


@dataclass(frozen=True, eq=False)
class DepthReference:
    """Counts behind the labels of a test section.

    Attributes
    ----------
    counts
        Counts (N, G) of all labelled spots of the section.
    mean_profile
        (G,) proportions of the genes in the training sections, None where they are not recorded.
    rows
        Spots that are tested, None for all. Depth and labels are averaged over all spots.
    genes
        Columns of the counts that are tested, None for all.
    """

    counts: PanelCounts
    mean_profile: FloatingArray | None = None
    rows: NDArray[np.integer] | None = None
    genes: NDArray[np.integer] | None = None

    @cached_property
    def depth(self) -> Float64Array:
        """(n,) smoothed depth of the tested spots."""
        return self.counts.depth if self.rows is None else self.counts.depth[self.rows]

    @cached_property
    def ceiling(self) -> NoiseCeiling:
        """Noise ceiling of the tested genes over the tested spots."""
        ceiling = compute_noise_ceiling(self.counts, self.rows)
        return ceiling if self.genes is None else ceiling.take(self.genes)

    def partial_pcc(self, predicted: FloatingArray, measured: FloatingArray) -> Float64Array:
        """Compute the depth-partial PCC of each tested gene."""
        return depth_partial_pcc(predicted, measured, self.depth)

    def depth_alone(self, measured: FloatingArray) -> float:
        """Compute the mean correlation of the depth with the labels of the tested genes."""
        return nanmean(depth_alone_pcc(measured, self.depth))

    def deviance_explained(self, predicted: FloatingArray, over_neighbors: bool = False) -> float:
        """Compute the share of the deviance that predicted labels (n, G) explain.

        Parameters
        ----------
        over_neighbors
            Whether the counts are first summed over the array neighbourhood.

        Returns
        -------
        The share; NaN without a mean profile.
        """
        if self.mean_profile is None or not np.isfinite(predicted).all():
            return float("nan")
        counts: FloatingArray = self.counts.values
        if over_neighbors:
            counts = self.counts.sum_over_neighbors(counts)
        counts = counts if self.rows is None else counts[self.rows]
        profile = np.asarray(self.mean_profile, np.float64)
        if self.genes is not None:
            counts, profile = counts[:, self.genes], profile[self.genes]
        proportions = proportions_from_labels(predicted, self.counts.scale)
        return deviance_explained(counts, proportions, profile)


def compute_mean_profile(counts: Sequence[PanelCounts]) -> Float64Array:
    """Compute the proportions (G,) of the genes among all counts of some sections."""
    sums = np.sum([c.values.sum(axis=0, dtype=np.float64) for c in counts], axis=0)
    return np.asarray(sums / sums.sum(), np.float64)


@dataclass(frozen=True, eq=False)
class TrainingDepth:
    """Depth and mean profile of the training sections, as a card records them.

    Attributes
    ----------
    median_totals
        Median panel total by training section.
    mean_profile
        Proportion of each gene of the panel among all counts, by symbol.
    """

    median_totals: Mapping[str, float]
    mean_profile: Mapping[str, float]

    @classmethod
    def of_sections(cls, counts: Mapping[str, PanelCounts], panel: Panel) -> TrainingDepth:
        """Compute the record of the training sections, by name."""
        profile = compute_mean_profile(list(counts.values()))
        return cls(
            {name: round(c.median_total, 1) for name, c in counts.items()},
            {s: float(f"{p:.4g}") for s, p in zip(panel.symbols, profile, strict=True)},
        )

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> TrainingDepth | None:
        """Return the record of a card; None where it has none.

        Cards come from files of others: what is no positive number is left out.
        """
        data = card.get("training_data")
        if not isinstance(data, dict):
            return None
        totals = _numbers(data.get("median_panel_totals"))
        profile = _numbers(data.get("mean_profile"))
        totals = {name: total for name, total in totals.items() if total > 0}
        return cls(totals, profile) if totals else None

    def to_card(self) -> dict[str, Any]:
        """Convert to entries of the training data of a card."""
        return {
            "median_panel_totals": dict(self.median_totals),
            "mean_profile": dict(self.mean_profile),
        }

    def profile_of(self, panel: Panel) -> Float64Array | None:
        """Return the proportions (G,) of the genes of a panel; None where one is not recorded."""
        if any(symbol not in self.mean_profile for symbol in panel.symbols):
            return None
        profile = np.array([self.mean_profile[s] for s in panel.symbols], np.float64)
        return profile / profile.sum() if profile.sum() > 0 else None

    def describe_shallow(self, counts: PanelCounts, panel: Panel) -> str | None:
        """Describe a section whose panel totals are far below those of the training sections.

        Parameters
        ----------
        counts
            Counts of the section.
        panel
            The genes that these counts are of. Where the section lacks genes of the checkpoint's
            panel, the totals of the training sections are reduced by their share.

        Returns
        -------
        A sentence; None where the section is not shallow.
        """
        share = sum(self.mean_profile.get(s, 0.0) for s in panel.symbols) or 1.0
        totals = sorted(total * share for total in self.median_totals.values())
        if counts.median_total >= SHALLOW_SHARE * totals[0]:
            return None
        trained = f"{totals[0]:,.0f}"
        if len(totals) > 1:
            trained += f" to {totals[-1]:,.0f}"
        return (
            f"Few molecules were caught here: a median of {counts.median_total:,.0f} panel counts "
            f"a spot, {trained} in the training sections. The labels of all genes follow that "
            "number, and so does a high PCC; read the depth-partial PCC beside its ceiling."
        )


def make_depth_reference(
    card: Mapping[str, Any], counts: PanelCounts, panel: Panel
) -> DepthReference:
    """Return the counts of a section of these genes with the mean profile that a card records."""
    trained = TrainingDepth.from_card(card)
    return DepthReference(counts, None if trained is None else trained.profile_of(panel))


def describe_shallow_section(
    card: Mapping[str, Any], counts: PanelCounts, panel: Panel
) -> str | None:
    """Describe a section of far fewer counts than the training sections'.

    Parameters
    ----------
    card
        Card of the checkpoint.
    counts, panel
        Counts of the section, and their genes.

    Returns
    -------
    A sentence; None where it is not shallow, or the card does not record the training's counts.
    """
    trained = TrainingDepth.from_card(card)
    return None if trained is None else trained.describe_shallow(counts, panel)


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf
    }
