"""Updates of all prediction overlays, the colour legend and the tooltip from the session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication, QToolTip

from ..session.prediction_overlay import PredictionOverlay
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from .canvas_legend import GENE_LEGEND, CanvasLegend, wrap_units
from .contrast_limits import get_label_range, percentile_limits, widen_limits
from .overlay_lookup import find_covered_tiles, sort_by_precedence
from .prediction_layers import GridOverlay, format_overlay_title
from .reliability_overlay import format_reliability
from .tile_map_layer import SMOOTH_NOTE

MIN_SPOTS_FOR_LIMITS = 20  # predictions with fewer spots do not determine limits
LAYER_LIMITS_DELAY_MS = 60  # after the last change in napari's controls of a layer
LIMIT_TOLERANCE = 0.05  # of the range; smaller changes of a growing map's limits are not drawn


def _slide_and_pixel_size(overlay: PredictionOverlay) -> tuple[object, object]:
    provenance = overlay.prediction.provenance
    return provenance.get("slide_fingerprint"), provenance.get("mpp")


def _shown_values(gene: str, overlays: Sequence[PredictionOverlay]) -> list[NDArray[np.float32]]:
    """Values of a gene in predictions and their rough maps."""
    predictions = [p for o in overlays for p in (o.prediction, o.rough) if p is not None]
    return [p.get_gene_values(gene) for p in predictions]


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
        self._tiling = session.viewer.canvas.overlay_tiling
        self._tiling_before = self._tiling.top_right
        self._tiling.top_right = "vertical"  # beside each other bar and text overlap
        self._drawn_limits: tuple[float, float] | None = None
        self._is_drawing = False
        self._layer_limits: tuple[str, tuple[float, float]] | None = None  # gene and limits
        self._limits_debouncer = Debouncer(LAYER_LIMITS_DELAY_MS, self._choose_layer_limits)
        connections.connect(
            self.refresh, session.gene_changed, session.settings_changed, session.overlays_changed
        )
        connections.connect(self._on_overlay_updated, session.overlay_updated)
        connections.connect(self._on_canvas_resized, session.viewer.canvas.events.size)
        connections.connect(self._follow_layers, session.overlays_changed)
        self._follow_layers()
        connections.add_callback(session.viewer.mouse_move_callbacks, self._on_mouse_move)

    def close(self) -> None:
        """Hide the legend."""
        self.legend.hide()
        self._limits_debouncer.stop()
        self._tiling.top_right = self._tiling_before
        for overlay in self._session.overlays:
            self._unfollow(overlay)

    def _follow_layers(self) -> None:
        """Follow what the user changes in napari's list and controls of layers."""
        for overlay in self._session.overlays:
            self._unfollow(overlay)
            overlay.layer.events.visible.connect(self._on_visibility_changed)
            if isinstance(overlay, GridOverlay):
                overlay.layer.events.contrast_limits.connect(self._on_layer_limits)

    def _unfollow(self, overlay: PredictionOverlay) -> None:
        overlay.layer.events.visible.disconnect(self._on_visibility_changed)
        if isinstance(overlay, GridOverlay):
            overlay.layer.events.contrast_limits.disconnect(self._on_layer_limits)

    def _on_layer_limits(self, event: Any) -> None:
        """Draw all maps with the limits that are being set in napari's controls of one."""
        low, high = map(float, event.source.contrast_limits)
        gene = self._session.gene
        if self._is_drawing or gene is None or not low < high:
            return
        self._layer_limits = gene, (low, high)
        self.preview_limits((low, high))
        self._limits_debouncer.start()

    def _choose_layer_limits(self) -> None:
        """Take them as the limits of their gene, once for each drag, so that undo knows them."""
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self._limits_debouncer.start()
            return
        chosen, self._layer_limits = self._layer_limits, None
        if chosen is not None:
            limits = self._session.settings.contrast_limits.choose(*chosen)
            self._session.change_settings(contrast_limits=limits)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        before, self._is_drawing = self._is_drawing, True
        try:
            yield
        finally:
            self._is_drawing = before

    def _on_visibility_changed(self, event: object = None) -> None:
        self._update_legend(self.shown_overlays())
        if len(self.shown_overlays()) > 1 and self._update_covered_tiles():
            self.refresh()

    def _on_canvas_resized(self, event: object = None) -> None:
        self._update_legend(self.shown_overlays())

    def shown_overlays(self) -> list[PredictionOverlay]:
        """Return the predictions that have the current gene."""
        gene = self._session.gene
        return [o for o in self._session.overlays if o.prediction.has_gene(gene)]

    def counted_overlays(self) -> list[PredictionOverlay]:
        """Return those of them whose values count: of the image and pixel size of now."""
        return [o for o in self.shown_overlays() if not self._session.is_outdated(o)]

    @property
    def drawn_limits(self) -> tuple[float, float]:
        """The contrast limits that the predictions are drawn with."""
        return self._drawn_limits or self.contrast_limits()

    def contrast_limits(self) -> tuple[float, float]:
        """Return the contrast limits of the current gene, shared by all predictions.

        Percentiles of the maps; of a few clicked spots they would say nothing, so these have the
        range of the checkpoint's labels.
        """
        gene = self._session.gene
        chosen = self._session.settings.contrast_limits.chosen_for(gene)
        if chosen is not None or gene is None:
            return chosen or (0.0, 1.0)
        counted = self.counted_overlays() or self.shown_overlays()
        maps = [o for o in counted if not o.from_clicks]
        limits = self._percentiles(gene, maps)
        if limits is not None:
            return limits
        values, checkpoint = _shown_values(gene, counted), self._session.checkpoint
        for prediction in (o.prediction for o in counted):
            sha256 = prediction.provenance.get("checkpoint_sha256")
            is_gene = prediction.find_score(gene) is None
            if is_gene and checkpoint is not None and sha256 == checkpoint.sha256:
                return widen_limits(get_label_range(checkpoint, gene), values)
        return percentile_limits(values)

    def _percentiles(
        self, gene: str, overlays: list[PredictionOverlay]
    ) -> tuple[float, float] | None:
        """Percentiles of a gene in predictions; None where they are of a few values only."""
        values = _shown_values(gene, overlays)
        n_finite = sum(int(np.isfinite(v).sum()) for v in values)
        return percentile_limits(values) if n_finite >= MIN_SPOTS_FOR_LIMITS else None

    def refresh(self) -> None:
        """Draw all predictions of the current gene."""
        shown = self.shown_overlays()
        self._update_covered_tiles()
        limits = self._drawn_limits = self.contrast_limits()
        for overlay in shown:
            self._draw_overlay(overlay, limits)
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
        if isinstance(overlay, GridOverlay):
            overlay.smooth = session.settings.smooth_maps
        with self._drawing(), session.draw_stages("draw", len(overlay.prediction.target)):
            overlay.draw(session.gene or "", limits, session.settings.colormap)
        title = format_overlay_title(overlay, session.gene or "")
        session.titles.set_title(overlay.layer, title, overlay.place)

    def _update_legend(self, shown: list[PredictionOverlay]) -> None:
        """Show what the topmost prediction measures; a hidden one needs no legend."""
        visible = [overlay for overlay in shown if overlay.layer.visible]
        for overlay in shown:  # the limits are shared, so one bar is enough
            overlay.colorbar.visible = any(overlay is last for last in visible[-1:])
        shown = visible
        if not shown:
            self.legend.hide()
            return
        prediction, gene = shown[-1].prediction, self._session.gene or ""
        kind, units = prediction.get_value_kind(gene), prediction.get_value_units(gene)
        is_label = units == prediction.label_scale.name
        if (score := prediction.find_score(gene)) is not None:  # the formula is in the tooltip
            units = f"{len(score.genes)} genes, {len(score.controls)} controls"
        smooth = any(isinstance(o, GridOverlay) and o.layer.factor > 1 for o in shown)
        self.show_legend(gene, kind, "" if is_label else units, smooth)

    def show_legend(self, gene: str, kind: str, units: str, smooth: bool) -> None:
        """Say beside the colour bar which values of a gene it measures.

        Parameters
        ----------
        gene : str
        kind : str
        units : str
            Of a score or a zero-shot gene, with its expected accuracy; "" for the label scale,
            which is in the tooltip.
        smooth : bool
            Whether tiles are drawn interpolated.
        """
        # Three lines: napari's box of a text is too short for more.
        lines = [gene, f"{kind} expression,", "log scale, smoothed" if smooth else "log scale"]
        if units:
            lines = [f"{gene} - {kind}", wrap_units(units), *([SMOOTH_NOTE] if smooth else [])]
        self.legend.show("\n".join(lines))

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
