"""Updates of all prediction overlays, the colour legend and the tooltip from the session."""

from __future__ import annotations

from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ..session.prediction_overlay import PredictionOverlay
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from .canvas_legend import GENE_LEGEND, CanvasLegend, wrap_units
from .contrast_limits import percentile_limits
from .overlay_lookup import find_covered_tiles, sort_by_precedence
from .prediction_layers import GridOverlay
from .reliability_overlay import format_reliability

LIMIT_TOLERANCE = 0.05  # of the range; smaller changes of a growing map's limits are not drawn


def _slide_and_pixel_size(overlay: PredictionOverlay) -> tuple[object, object]:
    provenance = overlay.prediction.provenance
    return provenance.get("slide_fingerprint"), provenance.get("mpp")


class OverlayDisplay:
    """Redraws the predictions of a session when gene, limits or colours change.

    Attributes
    ----------
    legend : CanvasLegend
        Says what the colour bar measures.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.legend = CanvasLegend(session, GENE_LEGEND, "top_right", 10)
        self._drawn_limits: tuple[float, float] | None = None
        connections.connect(
            self.refresh, session.gene_changed, session.settings_changed, session.overlays_changed
        )
        connections.connect(self._on_overlay_updated, session.overlay_updated)
        connections.connect(self._follow_visibility, session.overlays_changed)
        self._follow_visibility()
        connections.add_callback(session.viewer.mouse_move_callbacks, self._on_mouse_move)

    def close(self) -> None:
        """Hide the legend."""
        self.legend.hide()
        for overlay in self._session.overlays:
            overlay.layer.events.visible.disconnect(self._on_visibility_changed)

    def _follow_visibility(self) -> None:
        """Draw the tiles again that a map covered which is hidden now."""
        for overlay in self._session.overlays:
            overlay.layer.events.visible.disconnect(self._on_visibility_changed)
            overlay.layer.events.visible.connect(self._on_visibility_changed)

    def _on_visibility_changed(self, event: object = None) -> None:
        self._update_legend(self.shown_overlays())
        if len(self.shown_overlays()) > 1 and self._update_covered_tiles():
            self.refresh()

    def shown_overlays(self) -> list[PredictionOverlay]:
        """Return the predictions that have the current gene."""
        gene = self._session.gene
        return [o for o in self._session.overlays if o.prediction.has_gene(gene)]

    def contrast_limits(self) -> tuple[float, float]:
        """Return the contrast limits of the current gene, shared by all predictions."""
        gene = self._session.gene
        chosen = self._session.settings.contrast_limits.chosen_for(gene)
        if chosen is not None or gene is None:
            return chosen or (0.0, 1.0)
        values = [o.prediction.get_gene_values(gene) for o in self.shown_overlays()]
        values += [
            o.rough.get_gene_values(gene) for o in self.shown_overlays() if o.rough is not None
        ]
        return percentile_limits(values)

    def refresh(self) -> None:
        """Draw all predictions of the current gene."""
        shown = self.shown_overlays()
        self._update_covered_tiles()
        limits = self._drawn_limits = self.contrast_limits()
        for overlay in shown:
            self._draw_overlay(overlay, limits)
        for overlay in shown:  # the limits are shared, so one bar is enough
            overlay.colorbar.visible = overlay is shown[-1]
        self._update_legend(shown)

    def preview_limits(self, limits: tuple[float, float]) -> None:
        """Draw with these limits until the next `refresh`."""
        self._drawn_limits = limits
        for overlay in self.shown_overlays():
            self._draw_overlay(overlay, limits)

    def _on_overlay_updated(self, overlay: PredictionOverlay) -> None:
        """Draw new tiles; the limits change only if the difference is visible.

        New limits redraw the colour bar and its numbers, which takes longer than the map.
        """
        before, limits = self._drawn_limits, self.contrast_limits()
        if before is not None and not overlay.prediction.predicted_mask.all():
            tolerance = LIMIT_TOLERANCE * (before[1] - before[0])
            if max(abs(a - b) for a, b in zip(before, limits, strict=True)) <= tolerance:
                limits = before
        if len(self.shown_overlays()) > 1 and (before != limits or self._update_covered_tiles()):
            self.refresh()
        elif overlay in self.shown_overlays():
            self._drawn_limits = limits
            self._draw_overlay(overlay, limits)

    def _update_covered_tiles(self) -> bool:
        """Find the tiles of each map that a finer or newer map of its slide shows.

        Two translucent tiles on one another would have a colour that no legend explains.

        Returns
        -------
        bool
            Whether any map has to be drawn again.
        """
        maps = [o for o in sort_by_precedence(self.shown_overlays()) if isinstance(o, GridOverlay)]
        above: dict[object, list[GridOverlay]] = {}
        changed = False
        for one in maps:
            same_slide = above.setdefault(_slide_and_pixel_size(one), [])
            covered = find_covered_tiles(one, same_slide)
            changed = changed or bool((covered != one.covered).any())
            one.covered = covered
            if one.layer.visible:
                same_slide.append(one)
        return changed

    def _draw_overlay(self, overlay: PredictionOverlay, limits: tuple[float, float]) -> None:
        session = self._session
        with session.draw_stages("draw", len(overlay.prediction.target)):
            overlay.draw(session.gene or "", limits, session.settings.colormap)

    def _update_legend(self, shown: list[PredictionOverlay]) -> None:
        """Show what the topmost prediction measures; a hidden one needs no legend."""
        shown = [overlay for overlay in shown if overlay.layer.visible]
        if not shown:
            self.legend.hide()
            return
        prediction, gene = shown[-1].prediction, self._session.gene or ""
        self.show_legend(gene, prediction.get_value_kind(gene), prediction.get_value_units(gene))

    def show_legend(self, gene: str, kind: str, units: str) -> None:
        """Say beside the colour bar which values of a gene it measures."""
        self.legend.show(f"{gene} - {kind}\n{wrap_units(units)}")

    def _on_mouse_move(self, viewer: object, event: object) -> None:
        """Show the value of the topmost visible prediction under the cursor."""
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
                reliability = (
                    "" if row is None else format_reliability(prediction, overlay.reference, row)
                )
                lines = [
                    f"{gene} {prediction.get_value_kind(gene)} {value:.2f}",
                    prediction.get_value_units(gene),
                    reliability,
                ]
                QToolTip.showText(QCursor.pos(), "\n".join(line for line in lines if line))
                return
        QToolTip.hideText()
