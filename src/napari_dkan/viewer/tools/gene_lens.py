"""The gene lens: a circle that follows the cursor and shows the map of the current gene.

A mouse move draws known values and requests nothing, so it never waits. When the lens rests, a
thread computes the values that are missing inside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QRect
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ...spatial.coordinates import swap_xy
from ..jobs.prediction_jobs import PredictionJobs
from ..layers.overlay_display import OverlayDisplay
from ..layers.overlay_lookup import is_current_map
from ..layers.prediction_layers import GridOverlay
from ..session.prediction_overlay import PredictionOverlay
from ..session.shortcut_actions import register_actions
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from ..worker import JobFailure
from .lens_grid import GeneRaster, LensCircle, TileGridCache
from .lens_job import LensContext, LensJob, LensTask
from .lens_layers import LensLayers

MIN_RADIUS_UM, MAX_RADIUS_UM = 200.0, 3_000.0
RADIUS_FACTOR = 1.15  # per step of the wheel
SETTLE_DELAY_MS = 50  # after which a lens that has hardly moved counts as resting
SETTLED_FRACTION = 0.25  # of the radius
TOOLTIP_DELAY_MS = 300


class GeneLens:
    """The gene lens of a session.

    Attributes
    ----------
    active : bool
    radius_um : float
    job : LensJob
        Knows the current circle.
    grid : TileGridCache or None
        None until the tissue is detected.
    raster : GeneRaster or None
        The values of the current gene.
    layers : LensLayers or None
        None while the lens is off.
    """

    changed = Signal()  # activity or radius

    def __init__(
        self,
        session: ViewerSession,
        connections: SignalConnections,
        jobs: PredictionJobs,
        display: OverlayDisplay,
    ) -> None:
        self.session = session
        self.active = False
        self.radius_um = 1_000.0
        self._jobs, self._display = jobs, display
        self.job = LensJob(session, jobs, self._on_new_values, self._on_job_end)
        self._context: LensContext | None = None
        self.grid: TileGridCache | None = None
        self.raster: GeneRaster | None = None
        self._gene = ""
        self.layers: LensLayers | None = None
        self._timer_start_circle: LensCircle | None = None  # circle at the start of the timer
        self._job_was_running = False
        self._settle_timer = Debouncer(SETTLE_DELAY_MS, self._on_settle_timer)
        self._tooltip_timer = Debouncer(TOOLTIP_DELAY_MS, self._show_tooltip)
        connections.connect(
            self.refresh,
            session.slide_changed,
            session.tissue_edited,
            session.checkpoint_changed,
            session.zero_shot_changed,
            session.gene_changed,
            session.settings_changed,
            session.overlays_changed,
        )
        connections.connect(self._on_overlay_updated, session.overlay_updated)
        connections.connect(self._on_jobs_changed, jobs.changed)
        session.layers.watch_removal(
            lambda: () if self.layers is None else self.layers.layers,
            lambda: self.set_active(False),
            connections,
        )
        viewer = session.viewer
        connections.add_callback(viewer.mouse_move_callbacks, self._on_mouse_move)
        connections.add_callback(viewer.mouse_wheel_callbacks, self._on_mouse_wheel)
        connections.on_disconnect(
            register_actions(viewer, lens=lambda: self.set_active(not self.active))
        )

    @property
    def busy(self) -> bool:
        """Whether tiles are being computed, or soon will be."""
        return self.job.busy or self._settle_timer.active

    def close(self) -> None:
        """Switch the lens off and wait for its thread."""
        self.set_active(False)
        self.job.close()

    def set_active(self, active: bool) -> None:
        """Switch the lens on or off; a missing slide is reported as a message."""
        if active != self.active:
            with self.session.message.report_errors():
                if active:
                    self.session.require_slide()
                self.active = active
            self.refresh()
        self.changed.emit()

    def resize(self, radius_um: float) -> None:
        """Set the radius, within its limits."""
        self.radius_um = float(np.clip(radius_um, MIN_RADIUS_UM, MAX_RADIUS_UM))
        if (circle := self.job.circle) is not None:
            self.move(circle.x, circle.y)
        self.changed.emit()

    def move(self, x: float, y: float) -> None:
        """Move the centre to (x, y) in level-0 px and draw the known values."""
        if (context := self._context) is None:
            return
        slide = context.slide.slide
        x, y = float(np.clip(x, 0, slide.width)), float(np.clip(y, 0, slide.height))
        self.job.circle = LensCircle(x, y, self.radius_um / context.mpp)
        self._update_raster()
        if not self._settle_timer.active:
            self._start_settle_timer()

    def value_at(self, x: float, y: float) -> float | None:
        """Return the value of the shown gene at (x, y) in level-0 px, if known and inside."""
        circle, grid, raster = self.job.circle, self.grid, self.raster
        if circle is None or grid is None or raster is None:
            return None
        inside = np.hypot(x - circle.x, y - circle.y) <= circle.radius
        return grid.value_at(raster, x, y) if inside else None

    def _on_mouse_wheel(self, viewer: object, event: Any) -> None:
        """Shift and the wheel change the radius."""
        if self.active and "Shift" in event.modifiers:
            self.resize(self.radius_um * RADIUS_FACTOR ** float(np.sign(sum(event.delta))))
            event.handled = True

    def _on_mouse_move(self, viewer: object, event: object) -> None:
        context = self._context
        if context is None:
            return
        world = self.session.viewer.cursor.position[-2:]
        y, x = (float(v) for v in context.slide.layer.world_to_data(world)[-2:])
        self.move(x, y)
        self._tooltip_timer.start()

    def _show_tooltip(self) -> None:
        """Show the value under a resting cursor; a tooltip would be under a moving one."""
        context, circle, gene = self._context, self.job.circle, self._gene
        if not context or not circle:
            return
        if (value := self.value_at(circle.x, circle.y)) is not None:
            position = QCursor.pos()
            text = f"{gene} {context.kind(gene)} {value:.2f}\n{context.units(gene)}"
            QToolTip.showText(position, text, None, QRect(position, position))  # until it moves

    def refresh(self) -> None:
        """Follow the current slide, gene and colours."""
        context = LensContext.from_session(self.session) if self.active else None
        if context is None or not context.is_same(self._context):
            self._switch_context(context)
        if context is None:
            return
        gene = self.session.gene or ""
        if self.grid is not None and (self.raster is None or gene != self._gene):
            self.job.cancel()
            self.raster = self.grid.get_raster(gene)
        self._gene = gene
        self._update_style()
        circle = self.job.circle
        if circle is None:
            centre = self.session.viewer.scene.camera.center[-2:]
            y, x = (float(v) for v in context.slide.layer.world_to_data(centre)[-2:])
            self.move(x, y)
        else:
            self.move(circle.x, circle.y)

    def _switch_context(self, context: LensContext | None) -> None:
        self.job.cancel()
        self._settle_timer.stop()
        self._tooltip_timer.stop()
        before, self._context = self._context, context
        self.grid = None if context is None else context.make_grid()
        self.raster = self.job.rest_circle = None
        if before is None or context is None or before.slide is not context.slide:
            self.job.circle = None
        layers, self.layers = self.layers, None
        if layers:
            layers.remove()
            QToolTip.hideText()
            if not self._display.shown_overlays():
                self._display.legend.hide()

    def _update_raster(self) -> None:
        raster, circle = self.raster, self.job.circle
        if raster is None or circle is None:
            return
        if self.layers is None:
            self._update_style()
        if self.layers is not None:
            with self.session.draw_stages("draw lens"):
                values = np.where(self._find_mapped_tiles(), np.float32(np.nan), raster.values)
                self.layers.draw(values, circle, self.session.settings.smooth_maps)

    def _find_mapped_tiles(self) -> NDArray[np.bool_]:
        """(rows, columns) tiles that a visible map shows, which the lens leaves to the map.

        Two translucent tiles on one another would have a colour that no legend explains.
        """
        assert self.grid is not None and self.raster is not None
        mapped = np.zeros(self.raster.values.shape, bool)
        last = np.array(mapped.shape) - 1
        for overlay in self.session.overlays:
            if not isinstance(overlay, GridOverlay) or not overlay.layer.visible:
                continue
            if is_current_map(self.session, overlay):
                prediction = overlay.prediction
                centres = prediction.target.spots.xy[prediction.predicted_mask]
                row, column = np.floor(swap_xy(centres) / self.grid.pitch).astype(np.int64).T
                mapped[row.clip(0, last[0]), column.clip(0, last[1])] = True
        return mapped

    def _update_style(self) -> None:
        """Update colours, names and legend, which do not depend on the position."""
        context, grid, session, gene = self._context, self.grid, self.session, self._gene
        if context is None or grid is None or self.raster is None:
            return
        if self.layers is None:
            record = {"checkpoint_sha256": context.checkpoint.sha256, "pitch_um": grid.pitch_um}
            self.layers = LensLayers(session, context.slide, grid.pitch, record)
        shown = self._display.shown_overlays()
        layers, kind = self.layers, context.kind(gene)
        layers.set_names(gene, kind)
        layers.set_style(
            self._contrast_limits(shown), session.settings.colormap, session.settings.opacity
        )
        layers.raster_layer.colorbar.visible = not shown  # maps have one with the same limits
        if not shown:
            units = context.units(gene)
            is_label = units == context.checkpoint.label_scale.name
            smooth = session.settings.smooth_maps
            self._display.show_legend(gene, kind, "" if is_label else units, smooth)

    def _contrast_limits(self, shown: list[PredictionOverlay]) -> tuple[float, float]:
        """The limits of the predictions, which the colour bar has; else those of the lens."""
        chosen = self.session.settings.contrast_limits.chosen_for(self.session.gene)
        if chosen is not None:
            return chosen
        if shown:
            return self._display.contrast_limits()
        return (0.0, 1.0) if self.raster is None else self.raster.contrast_limits()

    def _start_settle_timer(self) -> None:
        """Check after a delay whether the lens rests."""
        self._timer_start_circle = self.job.circle
        self._settle_timer.start()

    def _on_settle_timer(self) -> None:
        circle, start = self.job.circle, self._timer_start_circle
        if circle is None or start is None:
            return
        if circle.centre_distance(start) > SETTLED_FRACTION * circle.radius:
            self._start_settle_timer()
            return
        self.job.rest_circle = circle  # a running job continues there
        self._start_job()

    def _start_job(self) -> None:
        if self._context is not None:
            self.job.start(LensTask(self._context, self._gene, self.grid, self.raster))

    def _on_new_values(self) -> None:
        self._update_style()
        self._update_raster()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.show_failure(failure)
        elif self.grid is None:
            self.refresh()  # the tissue is detected now
        elif self.grid.is_empty:
            self.session.message.show(
                "No tissue was found on this slide; switch off 'Tissue only' under Advanced to "
                "use the lens all the same.",
                warning=True,
            )
        else:
            self._start_job()  # the lens may rest elsewhere by now

    def _on_overlay_updated(self, overlay: object) -> None:
        """Look up tiles of a growing map, and follow its limits."""
        grid, raster, circle = self.grid, self.raster, self.job.circle
        if grid is None or raster is None or circle is None:
            return
        if self._jobs.busy:
            raster.unmark_looked_up(grid.cells_to_predict(raster, circle))
            self._start_settle_timer()
        self._on_new_values()

    def _on_jobs_changed(self) -> None:
        """Continue after a map, with the tiles of the map."""
        was_running, self._job_was_running = self._job_was_running, self._jobs.busy
        if was_running and not self._job_was_running and self.grid is not None:
            self.grid.reset_lookups()
            self._start_settle_timer()
