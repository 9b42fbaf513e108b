"""Text on the canvas that says what a colour bar measures."""

from __future__ import annotations

from textwrap import fill

from napari.components.overlays import TextOverlay

from ..session.viewer_session import ViewerSession

LEGEND_PREFIX = "napari_dkan_"  # of the names of all legends among the canvas overlays
GENE_LEGEND = LEGEND_PREFIX + "legend"
LEGEND_WIDTH = 24  # characters: colour bars take the rest of a narrow canvas
NARROW_CANVAS_PX, SMALL_FONT_SIZE = 260, 7  # as at 200 % on a small screen


class CanvasLegend:
    """One text of the canvas; the overlay is created on the first use.

    Parameters
    ----------
    session : ViewerSession
    name : str
        Name among the canvas overlays; begins with `LEGEND_PREFIX`.
    position : str
        Initial position on the canvas.
    font_size : float
    """

    def __init__(self, session: ViewerSession, name: str, position: str, font_size: float) -> None:
        self._session, self._name = session, name
        self._position, self._font_size = position, font_size
        self._hidden: set[str] = set()  # legends that this one hides

    def show(self, text: str, position: str | None = None, alone: bool = False) -> None:
        """Show a text; on a narrow canvas its first line, since colour bars take the rest.

        Parameters
        ----------
        text : str
        position : str or None
            None keeps the current position.
        alone : bool
            Hide the other legends until `hide`.
        """
        overlays = self._session.viewer.canvas.overlays
        if self._name not in overlays:
            overlays[self._name] = TextOverlay(position=self._position, font_size=self._font_size)
        legend = overlays[self._name]
        if position is not None:
            legend.position = position
        is_narrow = self._session.viewer.canvas.size[1] < NARROW_CANVAS_PX
        legend.font_size = SMALL_FONT_SIZE if is_narrow else self._font_size
        if is_narrow:
            text = text.partition("\n")[0]
        if str(legend.position).endswith("right"):
            # napari makes the box of a text a little narrower than the text.
            text = "\n".join(f"  {line}" for line in text.splitlines())
        legend.text, legend.visible = text, True
        if alone:
            for name, other in overlays.items():
                if name.startswith(LEGEND_PREFIX) and name != self._name and other.visible:
                    other.visible = False
                    self._hidden.add(name)

    def hide(self) -> None:
        """Hide the text, and show the legends that `show` has hidden."""
        overlays = self._session.viewer.canvas.overlays
        hidden, self._hidden = self._hidden, set()
        for name in hidden:
            if name in overlays:
                overlays[name].visible = True
        if self._name in overlays:
            overlays[self._name].visible = False


def wrap_units(units: str) -> str:
    """Wrap the units of a colour bar to the width of a legend."""
    return "\n".join(fill(line, LEGEND_WIDTH) for line in units.splitlines())
