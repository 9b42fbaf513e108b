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
    occlude_spot,
)
from ...inference.spot_inputs import gather_spot_inputs
from ..layers.canvas_legend import GENE_LEGEND, LEGEND_PREFIX, CanvasLegend
from ..layers.prediction_layers import SpotsOverlay
from ..session.shortcut_actions import register_actions
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS, ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint
    from ..session.prediction_overlay import PredictionOverlay


TILE_PX = 56  # raster px per tile
GAP_PX = 2  # raster px around a neighbour tile
OUTLINE_PX = 4  # raster px
DIMMED_OPACITY = 0.06  # of maps below
WHY_LEGEND = LEGEND_PREFIX + "why"
LEGEND_LINES = "orange: lower if covered", "blue: higher if covered"
INNER_STRENGTH = 0.45  # of a neighbour's strength, inside its outline
# Orange and blue differ for every kind of colour vision, and from pink tissue.
DIVERGING_COLORMAP = Colormap(
    [[0.0, 0.28, 0.75, 0.9], [0.0, 0.45, 0.85, 0.0], [0.95, 0.5, 0.0, 0.0], [0.9, 0.35, 0.0, 0.9]],
    controls=[0, 0.5, 0.5, 1],
    name="dkan why",
)


class OcclusionLayer:
    """The layer of an occlusion map.

    While it is in the viewer, predicted spots below it are hidden and maps are nearly transparent,
    since they cover the tissue. Maps stay visible: a click on them still shows their tile. What the
    colours mean stands in place of the legend and the colour bar of the maps.
    """

    def __init__(self, session: ViewerSession, slide: ViewerSlide, record: object) -> None:
        self._session, self._slide = session, slide
        self._extent: tuple[float, float, float] | None = None  # centre x, y and half the side
        self._hidden_layers: list[Points] = []
        self._dimmed_layers: list[tuple[Image, float]] = []  # and their opacity before
        self._barred: list[PredictionOverlay] = []  # whose colour bar is hidden
        self._legend = CanvasLegend(session, WHY_LEGEND, "top_right", 10)
        self._hides_gene_legend = False
        self.layer = Image(
            np.full((1, 1), np.nan, np.float32),
            name="why here",
            blending="translucent",
            interpolation2d="nearest",
            contrast_limits=(-1, 1),
            colormap=DIVERGING_COLORMAP,
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            metadata={METADATA_PREFIX: record},
        )
        session.layers.insert(self.layer, slide, listed=False)

    def draw(
        self,
        name: str,
        patch: tuple[float, float, float],
        tiles: NDArray[np.float32],
        blocks: NDArray[np.float32],
    ) -> None:
        """Draw an occlusion map.

        Parameters
        ----------
        name : str
        patch : tuple of float
            Centre (x, y) and side of the patch in level-0 px.
        tiles, blocks : ndarray
            As in `OcclusionAttribution`: (grid, grid) and (n, n).
        """
        x, y, side = patch
        layer, px = self.layer, side * self._slide.mpp / TILE_PX
        half = len(tiles) * side / 2
        layer.data = make_occlusion_raster(tiles, blocks)
        layer.scale = (px, px)
        layer.translate = [(c - half) * self._slide.mpp + px / 2 for c in (y, x)]
        layer.name = name
        self._extent = (x, y, half)
        self.clear_tissue()
        lines = [name, *LEGEND_LINES]
        self._legend.show("\n".join(lines))

    def clear_tissue(self) -> None:
        """Hide predicted spots below the layer, and dim maps, until `remove`."""
        if self._extent is None:
            return
        x, y, half = self._extent
        for layer in self._spot_layers():
            is_below = (np.abs(layer.data - (y, x)) < half).all(axis=1)
            if layer.visible and is_below.any():
                layer.visible = False
                self._hidden_layers.append(layer)
        dimmed = [layer for layer, _ in self._dimmed_layers]
        for overlay in self._session.overlays:
            layer = overlay.layer
            if isinstance(layer, Image) and layer not in dimmed:
                self._dimmed_layers.append((layer, layer.opacity))
                layer.opacity = min(layer.opacity, DIMMED_OPACITY)
            if overlay.colorbar.visible:
                self._barred.append(overlay)
                overlay.colorbar.visible = False
        legend = self._session.viewer.canvas.overlays.get(GENE_LEGEND)
        if legend is not None and legend.visible:
            self._hides_gene_legend, legend.visible = True, False

    def remove(self) -> None:
        """Remove the layer and show spots and maps as before."""
        self._extent = None
        for layer in self._hidden_layers:
            layer.visible = True
        for layer, opacity in self._dimmed_layers:
            if layer.opacity == DIMMED_OPACITY:  # or the user has changed it meanwhile
                layer.opacity = opacity
        self._hidden_layers, self._dimmed_layers = [], []
        for overlay in self._barred[-1:]:  # there is one bar
            overlay.colorbar.visible = True
        self._legend.hide()
        if self._hides_gene_legend:
            self._session.viewer.canvas.overlays[GENE_LEGEND].visible = True
        self._session.layers.remove(self.layer)

    def _spot_layers(self) -> list[Points]:
        return [o.layer for o in self._session.overlays if isinstance(o, SpotsOverlay)]


def make_occlusion_raster(
    tiles: NDArray[np.float32], blocks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the raster of an occlusion map.

    Parameters
    ----------
    tiles : ndarray, (grid, grid)
        Effect of each neighbour tile; NaN where unknown.
    blocks : ndarray, (n, n)
        Effect of each block of the patch.

    Returns
    -------
    ndarray, (grid * TILE_PX, grid * TILE_PX)
        Within -1..1. Neighbours and blocks are scaled separately by their strongest effect.
    """
    full = np.repeat(np.repeat(_normalize(tiles), TILE_PX, axis=0), TILE_PX, axis=1)
    position = np.arange(len(full)) % TILE_PX
    margin = np.minimum(position, TILE_PX - 1 - position)
    margin = np.minimum(margin[:, None], margin[None])
    full[margin >= GAP_PX + OUTLINE_PX] *= INNER_STRENGTH
    full[margin < GAP_PX] = np.nan
    start = len(tiles) // 2 * TILE_PX
    index = np.arange(TILE_PX) * len(blocks) // TILE_PX
    inner = slice(start, start + TILE_PX)
    full[inner, inner] = _normalize(blocks)[np.ix_(index, index)]
    return full


def _normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    finite = np.abs(values[np.isfinite(values)])
    strongest = finite.max() if len(finite) else 0.0
    return np.asarray(values / strongest if strongest > 0 else values, np.float32)


@dataclass(frozen=True, eq=False)
class ExplainedSpot:
    """A clicked spot with the inputs of its prediction."""

    spot: Prediction
    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None

    @property
    def xy(self) -> tuple[float, float]:
        """Centre in level-0 px."""
        x, y = self.spot.target.spots.xy[-1].tolist()
        return x, y


class OcclusionExplainer:
    """Shows the occlusion map of the clicked spot and the current gene; computes in a thread.

    Attributes
    ----------
    active : bool
    explanation : OcclusionAttribution or None
        That of the current spot and gene.
    gene : str
        The gene of the explanation.
    """

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.active = False
        self.explanation: OcclusionAttribution | None = None
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
        connections.connect(
            self._on_overlays_changed, session.overlays_changed, session.settings_changed
        )
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
        """Whether a map is being computed."""
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

    def _on_spot_changed(self) -> None:
        session, spot = self.session, self.session.spot
        self._explained_spot = self._occlusions = None
        checkpoint = session.checkpoint
        sha256 = None if spot is None else spot.provenance.get("checkpoint_sha256")
        if spot and session.slide and checkpoint is not None and sha256 == checkpoint.sha256:
            self._explained_spot = ExplainedSpot(spot, session.slide, checkpoint, session.zero_shot)
        self._restart()

    def _on_slide_or_checkpoint_changed(self) -> None:
        """A spot of another slide or checkpoint is no longer explained."""
        explained, session = self._explained_spot, self.session
        if explained and (explained.slide, explained.checkpoint) != (
            session.slide,
            session.checkpoint,
        ):
            self._explained_spot = self._occlusions = None
        self._restart()

    def _restart(self) -> None:
        explained, gene = self._explained_spot, self.session.gene
        self._runner.cancel()
        self.explanation = None
        if not self.active or explained is None or gene is None or gene not in explained.spot.panel:
            self._remove_layer()
        else:
            self.gene = gene
            self._runner.start(
                lambda: self._explain(explained, gene), self._on_item, self._on_job_end
            )
        self.changed.emit()

    def _explain(self, explained_spot: ExplainedSpot, gene: str) -> Iterator[Any]:
        predictor = self.session.predictors.get(explained_spot.slide, explained_spot.checkpoint)
        context = predictor.prediction_context
        occluded = self._occlusions
        if occluded is None:
            inputs = yield from gather_spot_inputs(context, *explained_spot.xy)
            occluded = occlude_spot(context, inputs)
            yield occluded
        yield attribute_gene(
            context, occluded, explained_spot.spot.panel.row(gene), explained_spot.zero_shot
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
            self.session.show_failure(failure)
            self._remove_layer()
        self.changed.emit()

    def _show_layer(self) -> None:
        explained, attribution = self._explained_spot, self.explanation
        if explained is None or attribution is None:
            return
        if self._occlusion_layer is None:
            record = {"checkpoint_sha256": explained.checkpoint.sha256}
            self._occlusion_layer = OcclusionLayer(self.session, explained.slide, record)
        patch = (*explained.xy, explained.checkpoint.patch.um / explained.slide.mpp)
        self._occlusion_layer.draw(
            f"why {self.gene} here", patch, attribution.tiles, attribution.blocks
        )

    def _remove_layer(self) -> None:
        layer, self._occlusion_layer = self._occlusion_layer, None
        if layer is not None:
            layer.remove()

    def _on_overlays_changed(self) -> None:
        if self._occlusion_layer is not None:
            self._occlusion_layer.clear_tissue()
