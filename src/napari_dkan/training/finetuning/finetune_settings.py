"""Fine-tuning settings. This module does not import torch, so that `--help` and the widget are fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ...errors import SpotsError

DEFAULT_EPOCHS = 60


class AdaptScope(StrEnum):
    """What of a network may change; `auto` goes by the number of spots (`Adapt.suited`)."""

    auto = "auto"
    heads = "heads"  # the prediction heads alone
    decoder = "decoder"  # also what joins a gene's text with a spot
    everything = "everything"  # also what looks at the pixels

    def resolve(self, n_spots: int) -> AdaptScope:
        """What `auto` stands for with so many spots to learn from; any other choice is kept."""
        if self is not AdaptScope.auto:
            return self
        return AdaptScope.heads if n_spots < 30 else AdaptScope.decoder


class HoldOutUnit(StrEnum):
    """What is held out of the fit to be reported on."""

    blocks = "blocks"  # contiguous parts of every section
    sections = "sections"  # whole sections


@dataclass(frozen=True)
class FinetuneSettings:
    """adapt : what may change. epochs : at most; seconds : at most, counted from the first epoch.

    hold_out : blocks of every section, or whole sections. share : of the spots (or sections) that
        is held out and only reported on. lr : learning rate, None for the one of `adapt`.
    patience : epochs without a better choice before it stops; None to run all of them.

    Raises SpotsError when a number makes no sense.
    """

    adapt: AdaptScope = AdaptScope.auto
    epochs: int | None = None
    seconds: float | None = None
    hold_out: HoldOutUnit = HoldOutUnit.blocks
    share: float = 0.25
    seed: int = 2021
    lr: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.share <= 0.75:
            raise SpotsError(f"The share held out is {self.share:g}; give 0.1 to 0.75.")
        if self.epochs is not None and not 1 <= self.epochs <= 10_000:
            raise SpotsError(f"{self.epochs} epochs make no sense; give 1 to 10000.")
        if self.seconds is not None and not 0 < self.seconds <= 86_400:
            raise SpotsError(f"{self.seconds:g} seconds make no sense; give up to 86400.")
        if self.lr is not None and not self.lr > 0:
            raise SpotsError(f"A learning rate of {self.lr:g} makes no sense; give one above 0.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for cards and reports."""
        return asdict(self)
