"""Clicks: each one predicts the spot under it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from ..errors import DamagedTile, DkanError, SpotsError
from ..inference.job import Update
from ..inference.predict import empty_prediction
from ..inference.prediction import Prediction
from ..inference.target import Kind, Target
from ..spatial.spots import Spots
from .lane import Failure, Lane
from .overlay import Decode, SpotsOverlay
from .results.clicked import told_by_a_file
from .session import Session, Where

DRAG_PX = 4  # screen pixels; a press that moves farther pans the view


class Clicks:
    """Predicts clicked spots, one at a time; of rapid clicks the last one counts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lane = Lane("click")
        self._waiting: tuple[float, float] | None = None
        self._marks: tuple[object, SpotsOverlay] | None = None
        session.viewer.mouse_drag_callbacks.append(self._pressed)

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def close(self) -> None:
        callbacks = self.session.viewer.mouse_drag_callbacks
        if self._pressed in callbacks:
            callbacks.remove(self._pressed)
        self._waiting = None
        self._lane.cancel()
        self._lane.wait()

    def _pressed(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press and release without a drag is a click, while no drawing tool is active."""
        session = self.session
        active = viewer.layers.selection.active
        drawing = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if session.settings.where is not Where.CLICK or drawing or event.button != 1:
            return
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > DRAG_PX:
                return
            yield
        world = float(event.position[-2]), float(event.position[-1])
        if session.claimed(world) or told_by_a_file(session, world):
            return
        if session.slide is not None:
            row, column = session.slide.layer.world_to_data(event.position)[-2:]
            self.click(float(column), float(row))

    def click(self, x: float, y: float) -> None:
        """Predict the spot at (x, y) in level-0 px."""
        session = self.session
        try:
            slide = session.ready_slide()
            if not (0 <= x < slide.slide.width and 0 <= y < slide.slide.height):
                raise SpotsError("That click is beside the slide; click on the section.")
        except DkanError as error:
            session.say(str(error), alarming=True)
            return
        if self._lane.busy:
            self._waiting = (x, y)
            return
        checkpoint = session.checkpoint
        assert checkpoint is not None and slide.pixel_size is not None
        zero_shot = session.zero_shot
        tissue_only, origin = session.settings.tissue_only, slide.pixel_size.origin
        result: list[tuple[Prediction, Decode]] = []

        def job() -> Iterator[Update]:
            predictor = session.predictor(slide, checkpoint)
            if tissue_only:
                _need_tissue(predictor.tissue, x, y, predictor.side)
            spots = Spots(np.array([[x, y]]), diameter_um=checkpoint.spot_diameter_um)
            target = Target(Kind.POINTS, spots)
            if predictor.ready is not None and predictor.ready.alone:
                target = predictor.ready.at(x, y)
            prediction, _ = empty_prediction(predictor, target, origin, zero_shot=zero_shot)
            for update in predictor.stream(target, zero_shot=zero_shot):
                if update.stage == "spots":
                    if len(update.failed):
                        raise DamagedTile(
                            f"The slide {slide.slide.label} is damaged under that click; "
                            "click elsewhere, or export the slide again."
                        )
                    prediction.fill(update)
                    result.append((prediction, partial(predictor.decode, zero_shot=zero_shot)))
                yield update

        def follow(update: Update) -> None:
            if update.stage == "context":
                session.say(f"Reading the slide around the spot: {update.done} / {update.total}")

        def end(failure: Failure | None) -> None:
            if failure is not None:
                session.say(failure.sentence, alarming=True)
            elif (slide, checkpoint) == (session.slide, session.checkpoint):
                session.say("")
                session.set_spot(result[0][0])
                self._mark(*result[0])
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self.click(*waiting)

        self._lane.start(job, follow, end)

    def _mark(self, spot: Prediction, decode: Decode) -> None:
        """Clicked spots gather in one Points layer as long as slide, checkpoint and genes stay."""
        session = self.session
        slide = session.ready_slide()
        key = (slide, session.checkpoint, slide.mpp, spot.panel.symbols)
        if self._marks is not None and self._marks[0] == key:
            overlay = self._marks[1]
            if overlay in session.overlays:
                overlay.prediction = _joined(overlay.prediction, spot)
                session.overlays_changed.emit()
                return
        size_um = spot.provenance["patch_um"]
        what = f"clicked spots, {slide.layer.name}"
        overlay = SpotsOverlay(spot, decode, slide.mpp, size_um, what, session.settings.opacity)
        overlay.reference = None if session.checkpoint is None else session.checkpoint.reference
        overlay.clicked = True
        self._marks = (key, overlay)
        session.add_overlay(overlay, slide)


def _joined(before: Prediction, spot: Prediction) -> Prediction:
    xy = np.concatenate([before.target.spots.xy, spot.target.spots.xy])
    target = Target(Kind.POINTS, Spots(xy, diameter_um=spot.target.spots.diameter_um))
    values = np.concatenate([before.values, spot.values])
    tokens = np.concatenate([before.tokens, spot.tokens])
    failed = np.concatenate([before.failed, spot.failed])
    evidence = np.concatenate([before.evidence, spot.evidence])
    return replace(
        spot, target=target, values=values, tokens=tokens, failed=failed, evidence=evidence
    )


def _need_tissue(tissue: BaseGeometry, x: float, y: float, side: float) -> None:
    square = box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    if not tissue.intersects(Point(x, y)) and tissue.intersection(square).area < square.area / 4:
        raise SpotsError(
            "There is no tissue under that click; click on the section, or switch off "
            "'Tissue only' under Advanced to predict there all the same."
        )
