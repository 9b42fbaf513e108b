"""The spot under a mouse click: a tile that is predicted already, or a new prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from ...errors import DamagedTileError, DkanError, SpotsError
from ...inference.predict import create_empty_prediction
from ...inference.prediction import Prediction
from ...inference.prediction_progress import PredictionUpdate
from ...inference.target import Target, TargetKind
from ...spatial.spots import Spots
from ..layers.overlay_lookup import decode_missing_genes, is_current_map, sort_by_precedence
from ..layers.prediction_layers import SpotsOverlay
from ..layers.spread_map import decode_spread, find_spread_checkpoint
from ..session.prediction_overlay import GeneDecoder, PredictionOverlay
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ...model import Checkpoint


DRAG_THRESHOLD_PX = 4  # screen pixels; a longer movement pans the view


class ClickPredictor:
    """Shows the tile of a map that is clicked, and predicts elsewhere, whatever the target mode.

    Spots are predicted one at a time; of rapid clicks the last one counts.

    Parameters
    ----------
    session : ViewerSession
    connections : SignalConnections
    show_saved_spot : callable
        Shows the spot of a reopened prediction at a world position (y, x), if there is one, and
        returns whether it did.
    """

    def __init__(
        self,
        session: ViewerSession,
        connections: SignalConnections,
        show_saved_spot: Callable[[tuple[float, float]], bool],
    ) -> None:
        self.session = session
        self._show_saved_spot = show_saved_spot
        self._runner = JobRunner("click")
        self._next_click: tuple[float, float] | None = None
        self._keyed_overlay: tuple[object, SpotsOverlay] | None = None
        connections.add_callback(session.viewer.mouse_drag_callbacks, self._on_mouse_press)
        connections.connect(self._predict_next_click, session.checkpoint_changed)
        connections.connect(self._forget_next_click, session.slide_changed)

    @property
    def busy(self) -> bool:
        """Whether a spot is being predicted."""
        return self._runner.busy

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._next_click = None
        self._runner.close()

    def _on_mouse_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press and release without a drag is a click, unless a drawing tool is active."""
        session = self.session
        active = viewer.layers.selection.active
        drawing = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if drawing or event.button != 1:
            return
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > DRAG_THRESHOLD_PX:
                return
            yield
        world = float(event.position[-2]), float(event.position[-1])
        if session.is_click_claimed(world) or self._show_saved_spot(world):
            return
        if self._show_map_tile(world):
            return
        if session.slide is not None:
            row, column = session.slide.layer.world_to_data(event.position)[-2:]
            self.predict_at(float(column), float(row))

    def _show_map_tile(self, world: tuple[float, float]) -> bool:
        """Show the predicted tile of a visible map at a world position (y, x), if there is one."""
        session = self.session
        for overlay in sort_by_precedence(session.overlays):
            is_shown = overlay.layer.visible or overlay.is_mixed
            if not (is_shown and is_current_map(session, overlay)):
                continue
            row = overlay.row_at(world)
            if row is None or not overlay.prediction.predicted_mask[row]:
                continue
            self._next_click = None
            tile = overlay.prediction.take(np.array([row]))
            checkpoint = find_spread_checkpoint(session, tile)
            if tile.spread is None and checkpoint is not None:
                record = tile.provenance | {"spread": checkpoint.network.spread_meaning}
                spread = np.full_like(tile.values, np.nan)
                tile = replace(tile, spread=spread, provenance=record)

            def on_end(failure: JobFailure | None, tile: Prediction = tile) -> None:
                if failure is not None:
                    session.message.show(failure.message, warning=True)
                    return
                session.message.clear()
                session.set_spot(tile)

            if not len(tile.find_incomplete_columns()) and checkpoint is None:
                self._runner.cancel()
                on_end(None)
            else:
                job = partial(_decode_tile, overlay, tile, checkpoint)
                self._runner.start(job, lambda done: None, on_end)
            return True
        return False

    def predict_at(self, x: float, y: float) -> None:
        """Predict the spot at (x, y) in level-0 px.

        During a prediction it is the next one, and until the first checkpoint is loaded it waits.
        """
        session = self.session
        self._next_click = None
        try:
            slide_waits = session.slide is not None and session.slide.pixel_size is not None
            if session.checkpoint is None and slide_waits:
                self._next_click = (x, y)
                session.message.show("The model is still being loaded; this spot is next.")
                return
            slide = session.require_slide()
            if not (0 <= x < slide.slide.width and 0 <= y < slide.slide.height):
                raise SpotsError("That click is beside the slide; click on the section.")
        except DkanError as error:
            session.message.show(str(error), warning=True)
            return
        if self._runner.busy:
            self._next_click = (x, y)
            return
        checkpoint = session.checkpoint
        assert checkpoint is not None and slide.pixel_size is not None
        zero_shot = session.zero_shot
        tissue_only, origin = session.settings.tissue_only, slide.pixel_size.origin
        result: list[tuple[Prediction, GeneDecoder]] = []

        def job() -> Iterator[PredictionUpdate]:
            predictor = session.predictors.get(slide, checkpoint)
            if tissue_only:
                _require_tissue(predictor.tissue, x, y, predictor.patch_side_px)
            spots = Spots(np.array([[x, y]]), diameter_um=checkpoint.spot_diameter_um)
            target = Target(TargetKind.POINTS, spots)
            features = predictor.precomputed_features
            if features is not None and features.lacks_encoder:
                target = features.target_at_point(x, y)
            prediction, _ = create_empty_prediction(
                predictor, target, origin, zero_shot=zero_shot, with_spread=True
            )
            for update in predictor.stream(target, zero_shot=zero_shot, with_spread=True):
                if update.stage == "spots":
                    if len(update.failed_rows):
                        raise DamagedTileError(
                            f"The slide {slide.slide.label} is damaged under that click; "
                            "click elsewhere, or export the slide again."
                        )
                    prediction.apply_update(update)
                    result.append((prediction, partial(predictor.decode, zero_shot=zero_shot)))
                yield update

        def on_update(update: PredictionUpdate) -> None:
            if update.stage == "context":
                session.message.show(
                    f"Reading the slide around the spot: {update.done} / {update.total}"
                )

        def on_end(failure: JobFailure | None) -> None:
            if failure is not None:
                session.show_failure(failure)
            elif (slide, checkpoint) == (session.slide, session.checkpoint):
                session.message.clear()
                session.set_spot(result[0][0])
                self._add_to_overlay(*result[0])
            self._predict_next_click()

        self._runner.start(job, on_update, on_end)

    def _predict_next_click(self) -> None:
        next_click, self._next_click = self._next_click, None
        if next_click is not None:
            self.predict_at(*next_click)

    def _forget_next_click(self) -> None:
        self._next_click = None

    def _add_to_overlay(self, spot: Prediction, decode: GeneDecoder) -> None:
        """Add the spot to the Points layer of this slide, checkpoint and genes."""
        session = self.session
        slide = session.require_slide()
        key = (slide, session.checkpoint, slide.mpp, spot.panel.symbols)
        if self._keyed_overlay is not None and self._keyed_overlay[0] == key:
            overlay = self._keyed_overlay[1]
            if overlay in session.overlays:
                overlay.prediction = _append_spot(overlay.prediction, spot)
                session.overlays_changed.emit()
                return
        size_um = spot.provenance["patch_um"]
        overlay = SpotsOverlay(spot, decode, slide.mpp, size_um, session.settings.opacity)
        overlay.reference = None if session.checkpoint is None else session.checkpoint.reference
        overlay.from_clicks, overlay.label = True, "clicked"
        self._keyed_overlay = (key, overlay)
        session.add_overlay(overlay, slide)


def _decode_tile(
    overlay: PredictionOverlay, tile: Prediction, checkpoint: Checkpoint | None
) -> Iterator[float]:
    """Decode the genes of a tile that are not known yet, and their spread, in place."""
    yield from decode_missing_genes(overlay, tile)
    if tile.spread is not None and checkpoint is not None:
        yield from decode_spread(checkpoint, tile.tokens, tile.panel.symbols, tile.spread)


def _append_spot(previous: Prediction, spot: Prediction) -> Prediction:
    xy = np.concatenate([previous.target.spots.xy, spot.target.spots.xy])
    target = Target(TargetKind.POINTS, Spots(xy, diameter_um=spot.target.spots.diameter_um))
    values = np.concatenate([previous.values, spot.values])
    tokens = np.concatenate([previous.tokens, spot.tokens])
    failed = np.concatenate([previous.failed_mask, spot.failed_mask])
    qc_features = np.concatenate([previous.qc_features, spot.qc_features])
    spread = None
    if previous.spread is not None and spot.spread is not None:
        spread = np.concatenate([previous.spread, spot.spread])
    return replace(
        spot,
        spread=spread,
        target=target,
        values=values,
        tokens=tokens,
        failed_mask=failed,
        qc_features=qc_features,
        scores=previous.scores,
    )


def _require_tissue(tissue: BaseGeometry, x: float, y: float, side: float) -> None:
    square = box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    if not tissue.intersects(Point(x, y)) and tissue.intersection(square).area < square.area / 4:
        raise SpotsError(
            "There is no tissue under that click; click on the section, or switch off "
            "'Tissue only' under Advanced to predict there all the same."
        )
