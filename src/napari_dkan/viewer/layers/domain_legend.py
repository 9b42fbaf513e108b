"""The names of domains in their colours, on the canvas."""

from __future__ import annotations

from collections.abc import Sequence

from napari.components.overlays import TextOverlay
from qtpy.QtGui import QColor

from ..session.viewer_session import ViewerSession

CHIP_PREFIX = "dkan_domain_"  # of the names of the overlays, one for each domain
CHIP_FONT_SIZE = 9
MAX_NAME_LENGTH = 28


class DomainLegend:
    """A column of chips; a chip has the colour of its domain.

    It is below the caption of maps side by side, and on the other side of maps on the slide, where
    the overview is at the left.
    """

    def __init__(self, session: ViewerSession) -> None:
        self._session = session

    def show(self, names: Sequence[str], colors: Sequence[str], is_stacked: bool) -> None:
        """Show domains (D,) instead of those before."""
        overlays = self._session.viewer.canvas.overlays
        for number, (name, color) in enumerate(zip(names, colors, strict=True), 1):
            key = f"{CHIP_PREFIX}{number}"
            if key not in overlays:
                overlays[key] = TextOverlay(font_size=CHIP_FONT_SIZE)
            chip = overlays[key]
            chip.position = "top_right" if is_stacked else "top_left"
            short = name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 3]}..."
            chip.text, chip.box_color = short, color
            chip.color = "black" if QColor(color).lightnessF() > 0.5 else "white"
            chip.visible = True
        self._hide_from(len(names) + 1)

    def hide(self) -> None:
        self._hide_from(1)

    def _hide_from(self, first: int) -> None:
        for key, chip in self._session.viewer.canvas.overlays.items():
            number = key.removeprefix(CHIP_PREFIX)
            if number != key and int(number) >= first:
                chip.visible = False
