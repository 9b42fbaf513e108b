"""The gene lens: a circle that follows the cursor and shows the map of the current gene.

A mouse move draws known values and requests nothing, so it never waits. When the lens rests, a
thread computes the values that are missing inside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QRect
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ...errors import DkanError
from ..jobs.prediction_jobs import PredictionJobs
from ..layers.overlay_display import OverlayDisplay
from ..session.prediction_overlay import PredictionOverlay
from ..session.shortcut_actions import register_actions
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from ..worker import JobFailure
from .lens_grid import GeneRaster, LensCircle, TileGridCache
from .lens_job import LensContext, LensJob, LensTask
from .lens_layers import LensLayers

MIN_RADIUS_UM, MAX_RADIUS_UM = 200.0, 3_000.0  # radius
RADIUS_FACTOR = 1.15  # of the radius, for one turn of the wheel
SETTLE_DELAY_MS = 50  # the lens rests, or nearly so, before anything is computed for it
SETTLED_FRACTION = 0.25  # of its radius
TOOLTIP_DELAY_MS = 300  # the cursor rests before the value under it is told
MIN_SPOTS_FOR_LIMITS = 20  # spots; what has fewer gives no limits to go by


class GeneLens:
    """The lens of a session; on or off, at one place, of one size."""

    changed = Signal()  # on, off, or another size

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
        self._lens_job = LensJob(session, jobs, self._on_new_values, self._on_job_end)
        self._context: LensContext | None = None
        self._grid: TileGridCache | None = None
        self._raster: GeneRaster | None = None
        self._gene = ""
        self._layers: LensLayers | None = None
        self._timer_start_circle: LensCircle | None = None  # where it was when the timer began
        self._job_was_running = False
        self._settle_timer, self._tooltip_timer = (
            Debouncer(SETTLE_DELAY_MS, self._on_settle_timer),
            Debouncer(TOOLTIP_DELAY_MS, self._show_tooltip),
        )
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
            lambda: () if self._layers is None else self._layers.layers,
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
        return self._lens_job.busy or self._settle_timer.active

    def close(self) -> None:
        self.set_active(False)
        self._lens_job.close()

    # ---- what the person does --------------------------------------------------------

    def set_active(self, active: bool) -> None:
        if active != self.active:
            try:
                if active:
                    self.session.require_slide()
                self.active = active
            except DkanError as error:
                self.session.message.show(str(error), warning=True)
            self.refresh()
        self.changed.emit()

    def resize(self, radius_um: float) -> None:
        self.radius_um = float(np.clip(radius_um, MIN_RADIUS_UM, MAX_RADIUS_UM))
        if (place := self._lens_job.circle) is not None:
            self.move(place.x, place.y)
        self.changed.emit()

    def move(self, x: float, y: float) -> None:
        """Bring the lens to (x, y) in level-0 px; draws what is known there."""
        if (scene := self._context) is None:
            return
        slide = scene.slide.slide
        x, y = float(np.clip(x, 0, slide.width)), float(np.clip(y, 0, slide.height))
        self._lens_job.circle = LensCircle(x, y, self.radius_um / scene.mpp)
        self._update_raster()
        if not self._settle_timer.active:
            self._start_settle_timer()

    def value_at(self, x: float, y: float) -> float | None:
        """Of the shown gene at (x, y) in level-0 px; None off the lens or where none is known."""
        place, field, sheet = self._lens_job.circle, self._grid, self._raster
        if place is None or field is None or sheet is None:
            return None
        inside = np.hypot(x - place.x, y - place.y) <= place.radius
        return field.value_at(sheet, x, y) if inside else None

    def _on_mouse_wheel(self, viewer: object, event: Any) -> None:
        """napari leaves a wheel that is turned with a key to whoever wants it."""
        if self.active and "Shift" in event.modifiers:
            self.resize(self.radius_um * RADIUS_FACTOR ** float(np.sign(sum(event.delta))))
            event.handled = True

    def _on_mouse_move(self, viewer: object, event: object) -> None:
        scene = self._context
        if scene is None:
            return
        world = self.session.viewer.cursor.position[-2:]
        y, x = (float(v) for v in scene.slide.layer.world_to_data(world)[-2:])
        self.move(x, y)
        self._tooltip_timer.start()

    def _show_tooltip(self) -> None:
        """The value under the cursor, once it rests: a tip beside a moving one catches it."""
        scene, place, gene = self._context, self._lens_job.circle, self._gene
        if not scene or not place:
            return
        if (value := self.value_at(place.x, place.y)) is not None:
            at = QCursor.pos()
            text = f"{gene} {scene.kind(gene)} {value:.2f}\n{scene.units(gene)}"
            QToolTip.showText(at, text, None, QRect(at, at))  # until it moves

    # ---- following the session -------------------------------------------------------

    def refresh(self) -> None:
        """Take the slide, the gene and the colours of now."""
        scene = LensContext.from_session(self.session) if self.active else None
        if scene is None or not scene.is_same(self._context):
            self._switch_context(scene)
        if scene is None:
            return
        gene = self.session.gene or ""
        if self._grid is not None and (self._raster is None or gene != self._gene):
            self._lens_job.cancel()
            self._raster = self._grid.get_raster(gene)
        self._gene = gene
        self._update_style()
        place = self._lens_job.circle
        if place is None:
            middle = self.session.viewer.scene.camera.center[-2:]
            y, x = (float(v) for v in scene.slide.layer.world_to_data(middle)[-2:])
            self.move(x, y)
        else:
            self.move(place.x, place.y)

    def _switch_context(self, context: LensContext | None) -> None:
        """Nothing of the scene before holds in this one."""
        self._lens_job.cancel()
        self._settle_timer.stop()
        self._tooltip_timer.stop()
        before, self._context = self._context, context
        self._grid = None if context is None else context.make_grid()
        self._raster = self._lens_job.rest_circle = None
        if before is None or context is None or before.slide is not context.slide:
            self._lens_job.circle = None
        picture, self._layers = self._layers, None
        if picture:
            picture.remove()
            QToolTip.hideText()
            if not self._display.shown_overlays():
                self._display.legend.hide()

    def _update_raster(self) -> None:
        sheet, place = self._raster, self._lens_job.circle
        if sheet is None or place is None:
            return
        if self._layers is None:
            self._update_style()
        if self._layers is not None:
            with self.session.draw_stages("draw lens"):
                self._layers.draw(sheet.values, place)

    def _update_style(self) -> None:
        """Colours, name and legend: what does not change as the lens moves."""
        scene, field, session, gene = self._context, self._grid, self.session, self._gene
        if scene is None or field is None or self._raster is None:
            return
        if self._layers is None:
            record = {"checkpoint_sha256": scene.checkpoint.sha256, "pitch_um": field.pitch_um}
            self._layers = LensLayers(session, scene.slide, field.pitch, record)
        shown = self._display.shown_overlays()
        picture, kind = self._layers, scene.kind(gene)
        picture.set_names(gene, kind)
        picture.set_style(
            self._contrast_limits(shown), session.settings.colormap, session.settings.opacity
        )
        picture.raster_layer.colorbar.visible = not shown  # the maps have one, for the same colours
        if not shown:
            self._display.show_legend(gene, kind, scene.units(gene))

    def _contrast_limits(self, shown: list[PredictionOverlay]) -> tuple[float, float]:
        """The limits of the maps, so that colours compare; without a map those of all it saw."""
        if self.session.settings.contrast_limits.fixed is not None:
            return self.session.settings.contrast_limits.fixed
        if any(len(o.prediction.target) >= MIN_SPOTS_FOR_LIMITS for o in shown):
            return self._display.contrast_limits()
        return (0.0, 1.0) if self._raster is None else self._raster.contrast_limits()

    # ---- filling ---------------------------------------------------------------------

    def _start_settle_timer(self) -> None:
        """Look in a moment whether the lens rests."""
        self._timer_start_circle = self._lens_job.circle
        self._settle_timer.start()

    def _on_settle_timer(self) -> None:
        place, passed = self._lens_job.circle, self._timer_start_circle
        if place is None or passed is None:
            return
        if place.centre_distance(passed) > SETTLED_FRACTION * place.radius:
            self._start_settle_timer()
            return
        self._lens_job.rest_circle = place  # a running job goes on from there
        self._start_job()

    def _start_job(self) -> None:
        if self._context is not None:
            self._lens_job.start(LensTask(self._context, self._gene, self._grid, self._raster))

    def _on_new_values(self) -> None:
        self._update_style()
        self._update_raster()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.message.show(failure.message, warning=True)
        elif self._grid is None:
            self.refresh()  # the tissue is there now
        elif self._grid.is_empty:
            self.session.message.show(
                "No tissue was found on this slide; switch off 'Tissue only' under Advanced to "
                "use the lens all the same.",
                warning=True,
            )
        else:
            self._start_job()  # it may have come to rest elsewhere as the job ended

    def _on_overlay_updated(self, overlay: object) -> None:
        """A map predicts tiles that the lens may show, and its limits may have moved."""
        field, sheet, place = self._grid, self._raster, self._lens_job.circle
        if field is None or sheet is None or place is None:
            return
        if self._jobs.busy:
            sheet.unmark_looked_up(field.cells_to_predict(sheet, place))
            self._start_settle_timer()
        self._on_new_values()

    def _on_jobs_changed(self) -> None:
        """What waited for a map goes on when it is over, with what the map has predicted."""
        ran, self._job_was_running = self._job_was_running, self._jobs.busy
        if ran and not self._job_was_running and self._grid is not None:
            self._grid.reset_lookups()
            self._start_settle_timer()
