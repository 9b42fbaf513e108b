"""Updates of all prediction overlays, the colour legend and the tooltip from the session."""

from __future__ import annotations

from textwrap import fill

from napari.components.overlays import TextOverlay
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from .prediction_overlay import PredictionOverlay, percentile_limits
from .reliability_overlay import format_reliability

GENE_LEGEND = "napari_dkan_legend"
LEGEND_WIDTH = (
    24  # characters: on a small screen the canvas is narrow, and has bars beside the text
)
LIMIT_TOLERANCE = 0.05  # of the range: limits of a growing map that differ less are as good


class OverlayDisplay:
    """Redraws the overlays of a session whenever gene, limits or colours change."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._drawn_limits: tuple[float, float] | None = None  # as last drawn
        connections.connect(
            self.refresh, session.gene_changed, session.settings_changed, session.overlays_changed
        )
        connections.connect(self._on_overlay_updated, session.overlay_updated)
        session.viewer.mouse_move_callbacks.append(self._on_mouse_move)

    def close(self) -> None:
        session = self._session
        callbacks = session.viewer.mouse_move_callbacks
        if self._on_mouse_move in callbacks:
            callbacks.remove(self._on_mouse_move)
        overlays = session.viewer.canvas.overlays
        if GENE_LEGEND in overlays:
            overlays[GENE_LEGEND].visible = False

    def shown_overlays(self) -> list[PredictionOverlay]:
        """Overlays whose panel has the chosen gene."""
        gene = self._session.gene
        return [o for o in self._session.overlays if gene in o.prediction.panel]

    def contrast_limits(self) -> tuple[float, float]:
        """Contrast limits of the chosen gene: shared by all overlays, so colours compare."""
        fixed = self._session.settings.limits.fixed
        gene = self._session.gene
        if fixed is not None or gene is None:
            return fixed or (0.0, 1.0)
        values = [o.prediction.get_gene_values(gene) for o in self.shown_overlays()]
        values += [
            o.rough.get_gene_values(gene) for o in self.shown_overlays() if o.rough is not None
        ]
        return percentile_limits(values)

    def refresh(self) -> None:
        shown = self.shown_overlays()
        limits = self._drawn_limits = self.contrast_limits()
        for overlay in shown:
            self._draw_overlay(overlay, limits)
        for overlay in shown:  # limits are shared, so one bar stands for all
            overlay.colorbar.visible = overlay is shown[-1]
        self._update_legend(shown)

    def _on_overlay_updated(self, overlay: PredictionOverlay) -> None:
        """Draw new tiles; colours follow the limits once these have moved noticeably.

        New limits draw the colour bar and its numbers anew, which takes longer than the map.
        """
        before, limits = self._drawn_limits, self.contrast_limits()
        if before is not None and not overlay.prediction.predicted_mask.all():
            room = LIMIT_TOLERANCE * (before[1] - before[0])
            if max(abs(a - b) for a, b in zip(before, limits, strict=True)) <= room:
                limits = before
        if before != limits and len(self.shown_overlays()) > 1:
            self.refresh()
        elif overlay in self.shown_overlays():
            self._drawn_limits = limits
            self._draw_overlay(overlay, limits)

    def _draw_overlay(self, overlay: PredictionOverlay, limits: tuple[float, float]) -> None:
        session = self._session
        with session.draw_stages("draw", len(overlay.prediction.target)):
            overlay.draw(session.gene or "", limits, session.settings.colormap)

    def _update_legend(self, shown: list[PredictionOverlay]) -> None:
        """Text beside the colour bar: a colour bar alone does not say what it measures."""
        overlays = self._session.viewer.canvas.overlays
        if GENE_LEGEND not in overlays:
            if not shown:
                return
            overlays[GENE_LEGEND] = TextOverlay(position="top_right", font_size=10)
        legend = overlays[GENE_LEGEND]
        legend.visible = bool(shown)
        if shown:
            prediction, gene = shown[-1].prediction, self._session.gene or ""
            legend.text = f"{gene} - {prediction.get_value_kind(gene)}\n{wrap_units(prediction.get_value_units(gene))}"

    def _on_mouse_move(self, viewer: object, event: object) -> None:
        """Value under the cursor, from the topmost visible overlay."""
        session = self._session
        world = tuple(session.viewer.cursor.position[-2:])
        if session.is_click_claimed(world):
            return
        order = {id(layer): i for i, layer in enumerate(session.viewer.layers)}
        shown = [o for o in self.shown_overlays() if o.layer.visible]
        for overlay in sorted(shown, key=lambda o: -order.get(id(o.layer), -1)):
            value = overlay.value_at(world)
            if value is not None:
                prediction, gene = overlay.prediction, session.gene or ""
                row = overlay.row_at(world)
                doubt = (
                    "" if row is None else format_reliability(prediction, overlay.reference, row)
                )
                lines = [
                    f"{gene} {prediction.get_value_kind(gene)} {value:.2f}",
                    prediction.get_value_units(gene),
                    doubt,
                ]
                QToolTip.showText(QCursor.pos(), "\n".join(line for line in lines if line))
                return
        QToolTip.hideText()


def wrap_units(units: str) -> str:
    """What a colour bar measures, for the canvas."""
    return "\n".join(fill(line, LEGEND_WIDTH) for line in units.splitlines())
