"""Fine-tuning settings; free of torch, so that `--help` and the widget are fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ...errors import SpotsError

DEFAULT_EPOCHS = 60
MIN_DECODER_SPOTS = 30  # training spots below which `auto` leaves the decoder


class AdaptScope(StrEnum):
    """Modules of a network that are trained; the closed-form fits are tried in any case."""

    auto = "auto"  # the heads and, with enough spots, the decoder
    heads = "heads"  # the prediction heads
    decoder = "decoder"  # also the modules that combine gene text and spot
    everything = "everything"  # also the image branches
    plain = "plain"  # none of them: level, spread and ridge regression only

    def scopes(self, n_spots: int) -> tuple[AdaptScope, ...]:
        """List what is trained, one after another, with this number of training spots."""
        if self is AdaptScope.plain:
            return ()
        if self is not AdaptScope.auto:
            return (self,)
        few = n_spots < MIN_DECODER_SPOTS
        return (AdaptScope.heads,) if few else (AdaptScope.heads, AdaptScope.decoder)


class HoldOutUnit(StrEnum):
    """Unit of the test subset."""

    blocks = "blocks"  # contiguous parts of every section
    sections = "sections"  # whole sections


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of a fine-tuning.

    Attributes
    ----------
    adapt
        Modules that are trained.
    epochs, seconds
        Limits; the time counts from the first epoch. Where several parts are trained, each has
        all epochs, and its share of the time.
    hold_out, share
        Unit and share of the spots (or sections) of the test subset.
    lr
        Learning rate, None for that of `adapt`.
    patience
        Epochs without improvement before it stops; None for the default.

    Raises
    ------
    SpotsError
        When a number is out of range.
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
        """Convert to plain JSON, for cards and reports."""
        return asdict(self)
