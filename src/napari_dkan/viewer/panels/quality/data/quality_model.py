"""State of the quality-control panel: how the maps of a section are displayed."""

from __future__ import annotations

from enum import StrEnum


class MapLayout(StrEnum):
    """How the maps of a section are shown, as the panel words it."""

    STACKED = "On the slide"
    SIDE_BY_SIDE = "Side by side"


class MapKind(StrEnum):
    """Which of the stacked maps is visible."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    RESIDUAL = "residual"
