"""Keeps every overlay, the colour legend and the tooltip in step with the session."""

from __future__ import annotations

from textwrap import fill

from napari.components.overlays import TextOverlay
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from .links import Links
from .overlay import Overlay, robust_limits
from .session import Session
from .trust import verdict

LEGEND = "napari_dkan_legend"
WIDE = 24  # characters: on a small screen the canvas is narrow, and has bars beside the text
CLOSE = 0.05  # of the range: limits of a growing map that differ less are as good


class Display:
    """Redraws the overlays of a session whenever gene, limits or colours change."""

    def __init__(self, session: Session, links: Links) -> None:
        self._session = session
        self._limits: tuple[float, float] | None = None  # as last drawn
        links.join(
            self.refresh, session.gene_changed, session.settings_changed, session.overlays_changed
        )
        links.join(self._grew, session.overlay_grew)
        session.viewer.mouse_move_callbacks.append(self._hover)

    def close(self) -> None:
        session = self._session
        callbacks = session.viewer.mouse_move_callbacks
        if self._hover in callbacks:
            callbacks.remove(self._hover)
        overlays = session.viewer.canvas.overlays
        if LEGEND in overlays:
            overlays[LEGEND].visible = False

    def shown(self) -> list[Overlay]:
        """Overlays whose panel has the chosen gene."""
        gene = self._session.gene
        return [o for o in self._session.overlays if gene in o.prediction.panel]

    def limits(self) -> tuple[float, float]:
        """Contrast limits of the chosen gene: shared by all overlays, so colours compare."""
        fixed = self._session.settings.limits.fixed
        gene = self._session.gene
        if fixed is not None or gene is None:
            return fixed or (0.0, 1.0)
        values = [o.prediction.gene(gene) for o in self.shown()]
        values += [o.rough.gene(gene) for o in self.shown() if o.rough is not None]
        return robust_limits(values)

    def refresh(self) -> None:
        shown = self.shown()
        limits = self._limits = self.limits()
        for overlay in shown:
            self._draw(overlay, limits)
        for overlay in shown:  # limits are shared, so one bar stands for all
            overlay.colorbar.visible = overlay is shown[-1]
        self._legend(shown)

    def _grew(self, overlay: Overlay) -> None:
        """Draw new tiles; colours follow the limits once these have moved noticeably.

        New limits draw the colour bar and its numbers anew, which takes longer than the map.
        """
        before, limits = self._limits, self.limits()
        if before is not None and not overlay.prediction.done.all():
            room = CLOSE * (before[1] - before[0])
            if max(abs(a - b) for a, b in zip(before, limits, strict=True)) <= room:
                limits = before
        if before != limits and len(self.shown()) > 1:
            self.refresh()
        elif overlay in self.shown():
            self._limits = limits
            self._draw(overlay, limits)

    def _draw(self, overlay: Overlay, limits: tuple[float, float]) -> None:
        session = self._session
        with session.drawing("draw", len(overlay.prediction.target)):
            overlay.show(session.gene or "", limits, session.settings.colormap)

    def _legend(self, shown: list[Overlay]) -> None:
        """Text beside the colour bar: a colour bar alone does not say what it measures."""
        overlays = self._session.viewer.canvas.overlays
        if LEGEND not in overlays:
            if not shown:
                return
            overlays[LEGEND] = TextOverlay(position="top_right", font_size=10)
        legend = overlays[LEGEND]
        legend.visible = bool(shown)
        if shown:
            prediction, gene = shown[-1].prediction, self._session.gene or ""
            legend.text = f"{gene} - {prediction.kind(gene)}\n{lines(prediction.units(gene))}"

    def _hover(self, viewer: object, event: object) -> None:
        """Value under the cursor, from the topmost visible overlay."""
        session = self._session
        world = tuple(session.viewer.cursor.position[-2:])
        if session.claimed(world):
            return
        order = {id(layer): i for i, layer in enumerate(session.viewer.layers)}
        shown = [o for o in self.shown() if o.layer.visible]
        for overlay in sorted(shown, key=lambda o: -order.get(id(o.layer), -1)):
            value = overlay.value_at(world)
            if value is not None:
                prediction, gene = overlay.prediction, session.gene or ""
                row = overlay.row_at(world)
                doubt = "" if row is None else verdict(prediction, overlay.reference, row)
                lines = [
                    f"{gene} {prediction.kind(gene)} {value:.2f}",
                    prediction.units(gene),
                    doubt,
                ]
                QToolTip.showText(QCursor.pos(), "\n".join(line for line in lines if line))
                return
        QToolTip.hideText()


def lines(units: str) -> str:
    """What a colour bar measures, for the canvas."""
    return "\n".join(fill(line, WIDE) for line in units.splitlines())
