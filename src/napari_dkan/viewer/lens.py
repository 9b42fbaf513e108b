"""The gene lens: a circle that follows the cursor, with the chosen gene's map inside it.

A move draws what is known and asks for nothing, so it never waits; once the lens rests, a thread
fills in what is missing under it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QRect
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ..errors import DkanError
from .actions import answer
from .display import Display, lines
from .lane import Failure
from .later import Later
from .lens_circle import Circle
from .lens_field import Field, Sheet
from .lens_fill import Fill, Work
from .lens_picture import Picture, show_legend
from .lens_scene import Scene
from .links import Links
from .maps import Maps
from .overlay import Overlay
from .session import Session

SMALLEST_UM, LARGEST_UM = 200.0, 3_000.0  # radius
STEP = 1.15  # of the radius, for one turn of the wheel
SETTLE_MS = 50  # the lens rests, or nearly so, before anything is computed for it
NEARLY = 0.25  # of its radius
TIP_MS = 300  # the cursor rests before the value under it is told
FEW = 20  # spots; what has fewer gives no limits to go by


class Lens:
    """The lens of a session; on or off, at one place, of one size."""

    changed = Signal()  # on, off, or another size

    def __init__(self, session: Session, links: Links, maps: Maps, display: Display) -> None:
        self.session = session
        self.on = False
        self.radius_um = 1_000.0
        self._maps, self._display = maps, display
        self._fill = Fill(session, maps, self._more, self._ended)
        self._scene: Scene | None = None
        self._field: Field | None = None
        self._sheet: Sheet | None = None
        self._gene = ""
        self._picture: Picture | None = None
        self._passed: Circle | None = None  # where it was when the timer began
        self._map_ran = False
        self._timer, self._still = Later(SETTLE_MS, self._settle), Later(TIP_MS, self._tip)
        links.join(
            self.refresh,
            session.slide_changed,
            session.slide_edited,
            session.checkpoint_changed,
            session.zero_shot_changed,
            session.gene_changed,
            session.settings_changed,
            session.overlays_changed,
        )
        links.join(self._map_grew, session.overlay_grew)
        links.join(self._map_changed, maps.changed)
        links.join(self._layer_gone, session.viewer.layers.events.removed)
        viewer = session.viewer
        viewer.mouse_move_callbacks.append(self._hover)
        viewer.mouse_wheel_callbacks.append(self._wheel)
        self._forget_key = answer(viewer, lens=lambda: self.switch(not self.on))

    @property
    def busy(self) -> bool:
        return self._fill.busy or self._timer.active

    def close(self) -> None:
        self.switch(False)
        viewer = self.session.viewer
        for callbacks, callback in (
            (viewer.mouse_move_callbacks, self._hover),
            (viewer.mouse_wheel_callbacks, self._wheel),
        ):
            if callback in callbacks:
                callbacks.remove(callback)
        self._forget_key()
        self._fill.close()

    # ---- what the person does --------------------------------------------------------

    def switch(self, on: bool) -> None:
        if on != self.on:
            try:
                if on:
                    self.session.ready_slide()
                self.on = on
            except DkanError as error:
                self.session.say(str(error), alarming=True)
            self.refresh()
        self.changed.emit()

    def resize(self, radius_um: float) -> None:
        self.radius_um = float(np.clip(radius_um, SMALLEST_UM, LARGEST_UM))
        if (place := self._fill.place) is not None:
            self.move(place.x, place.y)
        self.changed.emit()

    def move(self, x: float, y: float) -> None:
        """Bring the lens to (x, y) in level-0 px; draws what is known there."""
        if (scene := self._scene) is None:
            return
        slide = scene.slide.slide
        x, y = float(np.clip(x, 0, slide.width)), float(np.clip(y, 0, slide.height))
        self._fill.place = Circle(x, y, self.radius_um / scene.mpp)
        self._draw()
        if not self._timer.active:
            self._wake()

    def value_at(self, x: float, y: float) -> float | None:
        """Of the shown gene at (x, y) in level-0 px; None off the lens or where none is known."""
        place, field, sheet = self._fill.place, self._field, self._sheet
        if place is None or field is None or sheet is None:
            return None
        inside = np.hypot(x - place.x, y - place.y) <= place.radius
        return field.value(sheet, x, y) if inside else None

    def _wheel(self, viewer: object, event: Any) -> None:
        """napari leaves a wheel that is turned with a key to whoever wants it."""
        if self.on and "Shift" in event.modifiers:
            self.resize(self.radius_um * STEP ** float(np.sign(sum(event.delta))))
            event.handled = True

    def _hover(self, viewer: object, event: object) -> None:
        scene = self._scene
        if scene is None:
            return
        world = self.session.viewer.cursor.position[-2:]
        y, x = (float(v) for v in scene.slide.layer.world_to_data(world)[-2:])
        self.move(x, y)
        self._still.start()

    def _tip(self) -> None:
        """The value under the cursor, once it rests: a tip beside a moving one catches it."""
        scene, place, gene = self._scene, self._fill.place, self._gene
        if not scene or not place:
            return
        if (value := self.value_at(place.x, place.y)) is not None:
            at = QCursor.pos()
            text = f"{gene} {scene.kind(gene)} {value:.2f}\n{scene.units(gene)}"
            QToolTip.showText(at, text, None, QRect(at, at))  # until it moves

    def _layer_gone(self, event: object) -> None:
        if self._picture is not None and not self._picture.whole:
            self.switch(False)

    # ---- following the session -------------------------------------------------------

    def refresh(self) -> None:
        """Take the slide, the gene and the colours of now."""
        scene = Scene.of(self.session) if self.on else None
        if scene is None or not scene.same(self._scene):
            self._leave(scene)
        if scene is None:
            return
        gene = self.session.gene or ""
        if self._field is not None and (self._sheet is None or gene != self._gene):
            self._fill.cancel()
            self._sheet = self._field.sheet(gene)
        self._gene = gene
        self._paint()
        place = self._fill.place
        if place is None:
            middle = self.session.viewer.scene.camera.center[-2:]
            y, x = (float(v) for v in scene.slide.layer.world_to_data(middle)[-2:])
            self.move(x, y)
        else:
            self.move(place.x, place.y)

    def _leave(self, scene: Scene | None) -> None:
        """Nothing of the scene before holds in this one."""
        self._fill.cancel()
        self._timer.stop()
        self._still.stop()
        before, self._scene = self._scene, scene
        self._field = None if scene is None else scene.field()
        self._sheet = self._fill.rests = None
        if before is None or scene is None or before.slide is not scene.slide:
            self._fill.place = None
        picture, self._picture = self._picture, None
        if picture:
            picture.take_away()
            QToolTip.hideText()
            if not self._display.shown():
                show_legend(self.session, "")

    def _draw(self) -> None:
        sheet, place = self._sheet, self._fill.place
        if sheet is None or place is None:
            return
        if self._picture is None:
            self._paint()
        if self._picture is not None:
            with self.session.drawing("draw lens"):
                self._picture.show(sheet.values, place)

    def _paint(self) -> None:
        """Colours, name and legend: what does not change as the lens moves."""
        scene, field, session, gene = self._scene, self._field, self.session, self._gene
        if scene is None or field is None or self._sheet is None:
            return
        if self._picture is None:
            record = {"checkpoint_sha256": scene.checkpoint.sha256, "pitch_um": field.pitch_um}
            self._picture = Picture(session, scene.slide, field.pitch, record)
        shown = self._display.shown()
        picture, kind = self._picture, scene.kind(gene)
        picture.name(gene, kind)
        picture.colour(self._colours(shown), session.settings.colormap, session.settings.opacity)
        picture.map.colorbar.visible = not shown  # the maps have one, for the same colours
        if not shown:
            show_legend(session, f"{gene} - {kind}\n{lines(scene.units(gene))}")

    def _colours(self, shown: list[Overlay]) -> tuple[float, float]:
        """The limits of the maps, so that colours compare; without a map those of all it saw."""
        if self.session.settings.limits.fixed is not None:
            return self.session.settings.limits.fixed
        if any(len(o.prediction.target) >= FEW for o in shown):
            return self._display.limits()
        return (0.0, 1.0) if self._sheet is None else self._sheet.limits()

    # ---- filling ---------------------------------------------------------------------

    def _wake(self) -> None:
        """Look in a moment whether the lens rests."""
        self._passed = self._fill.place
        self._timer.start()

    def _settle(self) -> None:
        place, passed = self._fill.place, self._passed
        if place is None or passed is None:
            return
        if place.moved(passed) > NEARLY * place.radius:
            self._wake()
            return
        self._fill.rests = place  # a running job goes on from there
        self._start()

    def _start(self) -> None:
        if self._scene is not None:
            self._fill.start(Work(self._scene, self._gene, self._field, self._sheet))

    def _more(self) -> None:
        self._paint()
        self._draw()

    def _ended(self, failure: Failure | None) -> None:
        if failure is not None:
            self.session.say(failure.sentence, alarming=True)
        elif self._field is None:
            self.refresh()  # the tissue is there now
        elif self._field.empty:
            self.session.say(
                "No tissue was found on this slide; switch off 'Tissue only' under Advanced to "
                "use the lens all the same.",
                alarming=True,
            )
        else:
            self._start()  # it may have come to rest elsewhere as the job ended

    def _map_grew(self, overlay: object) -> None:
        """A map predicts tiles that the lens may show, and its limits may have moved."""
        field, sheet, place = self._field, self._sheet, self._fill.place
        if field is None or sheet is None or place is None:
            return
        if self._maps.busy:
            sheet.forget_asked(field.missing(sheet, place))
            self._wake()
        self._more()

    def _map_changed(self) -> None:
        """What waited for a map goes on when it is over, with what the map has predicted."""
        ran, self._map_ran = self._map_ran, self._maps.busy
        if ran and not self._map_ran and self._field is not None:
            self._field.ask_again()
            self._wake()
