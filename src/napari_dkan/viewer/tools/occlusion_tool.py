"""Occlusion map of the clicked spot: the importance of patch regions and neighbour tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from napari.utils import Colormap
from numpy.typing import NDArray
from psygnal import Signal

from ...inference.occlusion import (
    OccludedTokens,
    OcclusionAttribution,
    attribute_gene,
    gather_spot_inputs,
    occlude_spot,
)
from ..layers.prediction_layers import SpotsOverlay
from ..session.shortcut_actions import register_actions
from ..session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint


TILE_PX = 56  # raster px a tile
GAP_PX, OUTLINE_PX = (
    2,
    4,
)  # raster px: left free around a neighbour tile, and the width of its outline
INNER_STRENGTH = 0.45  # of a neighbour's strength, within its outline
# Orange gives, blue takes: told apart by every kind of colour vision, and from pink tissue.
DIVERGING_COLORMAP = Colormap(
    [[0.0, 0.28, 0.75, 0.9], [0.0, 0.45, 0.85, 0.0], [0.95, 0.5, 0.0, 0.0], [0.9, 0.35, 0.0, 0.9]],
    controls=[0, 0.5, 0.5, 1],
    name="dkan why",
)


class OcclusionLayer:
    """One layer, over the grid x grid patches around a place (x, y); side : of a patch, level-0 px.

    Predicted spots under it are hidden meanwhile: they would hide the tissue it is about.
    """

    def __init__(self, session: ViewerSession, slide: ViewerSlide, record: object) -> None:
        self._session, self._slide = session, slide
        self._extent: tuple[float, float, float] | None = None  # x, y, half its side
        self._hidden_layers: list[Points] = []
        self.layer = Image(
            np.full((1, 1), np.nan, np.float32),
            name="why here",
            blending="translucent",
            interpolation2d="nearest",
            contrast_limits=(-1, 1),
            colormap=DIVERGING_COLORMAP,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={"napari-dkan": record},
        )
        session.layers.insert(self.layer, slide)

    def draw(
        self,
        name: str,
        place: tuple[float, float, float],
        tiles: NDArray[np.float32],
        blocks: NDArray[np.float32],
    ) -> None:
        """place : x, y and the patch's side; tiles (grid, grid) and blocks (n, n) as in `Why`."""
        x, y, side = place
        layer, px = self.layer, side * self._slide.mpp / TILE_PX
        half = len(tiles) * side / 2
        layer.data = make_occlusion_raster(tiles, blocks)
        layer.scale = (px, px)
        layer.translate = [(c - half) * self._slide.mpp + px / 2 for c in (y, x)]
        layer.name = name
        self._extent = (x, y, half)
        self.hide_spots_below()

    def hide_spots_below(self) -> None:
        """Hide what was predicted in spots there, until the picture is taken away."""
        if self._extent is None:
            return
        x, y, half = self._extent
        for layer in self._spot_layers():
            under = (np.abs(layer.data - (y, x)) < half).all(axis=1)
            if layer.visible and under.any():
                layer.visible = False
                self._hidden_layers.append(layer)

    def remove(self) -> None:
        self._extent = None
        for layer in self._hidden_layers:
            layer.visible = True
        self._hidden_layers = []
        self._session.layers.remove(self.layer)

    def _spot_layers(self) -> list[Points]:
        return [o.layer for o in self._session.overlays if isinstance(o, SpotsOverlay)]


def make_occlusion_raster(
    tiles: NDArray[np.float32], blocks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(grid * TILE, grid * TILE) within -1..1, NaN where nothing is known: the strongest block of
    the patch and the strongest neighbour are 1 or -1, each among its own kind."""
    each = _normalize(tiles)
    full = np.repeat(np.repeat(each, TILE_PX, axis=0), TILE_PX, axis=1)
    within = np.arange(len(full)) % TILE_PX
    margin = np.minimum(within, TILE_PX - 1 - within)
    margin = np.minimum(margin[:, None], margin[None])
    full[margin >= GAP_PX + OUTLINE_PX] *= INNER_STRENGTH
    full[margin < GAP_PX] = np.nan
    start = len(tiles) // 2 * TILE_PX
    index = np.arange(TILE_PX) * len(blocks) // TILE_PX
    inner = slice(start, start + TILE_PX)
    full[inner, inner] = _normalize(blocks)[np.ix_(index, index)]
    return full


def _normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    known = np.abs(values[np.isfinite(values)])
    most = known.max() if len(known) else 0.0
    return np.asarray(values / most if most > 0 else values, np.float32)


@dataclass(frozen=True, eq=False)
class ExplainedSpot:
    """A clicked spot with all that its numbers came from."""

    spot: Prediction
    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None

    @property
    def xy(self) -> tuple[float, float]:
        x, y = self.spot.target.spots.xy[-1].tolist()
        return x, y


class OcclusionExplainer:
    """Keeps the picture in step with spot and gene; computes in a thread of its own."""

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.active = False
        self.explanation: OcclusionAttribution | None = None  # of the gene and the place of now
        self.gene = ""
        self._runner = JobRunner("why")
        self._explained_spot: ExplainedSpot | None = None
        self._occlusions: OccludedTokens | None = None
        self._occlusion_layer: OcclusionLayer | None = None
        connections.connect(self._on_spot_changed, session.spot_changed)
        connections.connect(self._restart, session.gene_changed)
        connections.connect(
            self._on_slide_or_checkpoint_changed, session.slide_changed, session.checkpoint_changed
        )
        connections.connect(self._on_overlays_changed, session.overlays_changed)
        session.layers.watch_removal(
            lambda: () if self._occlusion_layer is None else (self._occlusion_layer.layer,),
            lambda: self.set_active(False),
            connections,
        )
        connections.on_disconnect(
            register_actions(session.viewer, why=lambda: self.set_active(not self.active))
        )

    @property
    def busy(self) -> bool:
        return self._runner.busy

    @property
    def has_spot(self) -> bool:
        """Whether there is a spot to explain."""
        return self._explained_spot is not None

    def close(self) -> None:
        self.set_active(False)
        self._runner.wait()

    def set_active(self, active: bool) -> None:
        if active != self.active:
            self.active = active
            if active:
                self._restart()
            else:
                self._runner.cancel()
                self._remove_layer()
        self.changed.emit()

    # ---- following the session -------------------------------------------------------

    def _on_spot_changed(self) -> None:
        session, spot = self.session, self.session.spot
        self._explained_spot = self._occlusions = None
        checkpoint = session.checkpoint
        by = None if spot is None else spot.provenance.get("checkpoint_sha256")
        if spot and session.slide and checkpoint is not None and by == checkpoint.sha256:
            self._explained_spot = ExplainedSpot(spot, session.slide, checkpoint, session.zero_shot)
        self._restart()

    def _on_slide_or_checkpoint_changed(self) -> None:
        """Another slide or checkpoint: what was clicked there is not explained here."""
        place, session = self._explained_spot, self.session
        if place and (place.slide, place.checkpoint) != (session.slide, session.checkpoint):
            self._explained_spot = self._occlusions = None
        self._restart()

    def _restart(self) -> None:
        place, gene = self._explained_spot, self.session.gene
        self._runner.cancel()
        self.explanation = None
        if not self.active or place is None or gene is None or gene not in place.spot.panel:
            self._remove_layer()
        else:
            self.gene = gene
            self._runner.start(lambda: self._explain(place, gene), self._on_item, self._on_job_end)
        self.changed.emit()

    def _explain(self, explained_spot: ExplainedSpot, gene: str) -> Iterator[Any]:
        predictor = self.session.predictors.get(explained_spot.slide, explained_spot.checkpoint)
        context = predictor.prediction_context
        coverings = self._occlusions
        if coverings is None:
            given = yield from gather_spot_inputs(context, *explained_spot.xy)
            coverings = occlude_spot(context, given)
            yield coverings
        yield attribute_gene(
            context, coverings, explained_spot.spot.panel.row(gene), explained_spot.zero_shot
        )

    def _on_item(self, item: Any) -> None:
        if isinstance(item, OccludedTokens):
            self._occlusions = item
        elif isinstance(item, OcclusionAttribution):
            self.explanation = item
            self._show_layer()
            self.changed.emit()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.message.show(failure.message, warning=True)
            self._remove_layer()
        self.changed.emit()

    # ---- the picture -----------------------------------------------------------------

    def _show_layer(self) -> None:
        place, found = self._explained_spot, self.explanation
        if place is None or found is None:
            return
        if self._occlusion_layer is None:
            record = {"checkpoint_sha256": place.checkpoint.sha256}
            self._occlusion_layer = OcclusionLayer(self.session, place.slide, record)
        where = (*place.xy, place.checkpoint.patch.um / place.slide.mpp)
        self._occlusion_layer.draw(f"why {self.gene} here", where, found.tiles, found.blocks)

    def _remove_layer(self) -> None:
        picture, self._occlusion_layer = self._occlusion_layer, None
        if picture is not None:
            picture.remove()

    def _on_overlays_changed(self) -> None:
        if self._occlusion_layer is not None:
            self._occlusion_layer.hide_spots_below()
