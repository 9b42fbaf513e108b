"""A map of how much each tile is like the clicked one, with the most similar ones outlined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from psygnal import Signal

from ...errors import DkanError, SpotsError
from ...spatial.tile_grid import TileGrid
from ..layers.canvas_legend import LEGEND_PREFIX, CanvasLegend
from ..layers.contrast_limits import percentile_limits
from ..layers.hidden_maps import HiddenMaps
from ..layers.slide_tiles import SlideTiles, find_slide_tiles
from ..layers.tile_map_layer import SMOOTH_NOTE, TileMapLayer
from ..layers.value_layers import color_grid, make_grid_layer, make_spots_layer
from ..session.slide_layer import METADATA_PREFIX, ViewerSlide, slide_to_world
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner

SIMILAR_LEGEND = LEGEND_PREFIX + "similar"
N_LISTED = 12
OUTLINE_COLOR, OUTLINE_WIDTH = "#ff9100", 0.08  # width in sides of a tile


@dataclass(frozen=True, eq=False)
class SimilarTilesResult:
    """Tiles of a slide compared with one of them.

    Attributes
    ----------
    slide : ViewerSlide
    grid : TileGrid
        The N tiles.
    cosines : (N,) array
    listed : (K,) array
        Rows of the most similar tiles, the best first.
    unreliable : (N,) bool array or None
    at : (2,) array
        (x, y) of the compared tile in level-0 px.
    """

    slide: ViewerSlide
    grid: TileGrid
    cosines: NDArray[np.float64]
    listed: NDArray[np.int64]
    unreliable: NDArray[np.bool_] | None
    at: NDArray[np.float64]

    def distances_um(self) -> NDArray[np.float64]:
        """Return the distance of each listed tile from the compared one."""
        offset = (self.grid.centres[self.listed] - self.at) * self.slide.mpp
        return np.asarray(np.hypot(*offset.T), np.float64)


class SimilarTiles:
    """Follows the clicked spot while it is on."""

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.active = False
        self.result: SimilarTilesResult | None = None
        self._runner = JobRunner("similar tiles")
        self._layers: tuple[Layer, ...] = ()
        self._hidden_maps = HiddenMaps(session)
        self._legend = CanvasLegend(session, SIMILAR_LEGEND, "top_right", 10)
        connections.connect(self._on_spot_changed, session.spot_changed)
        connections.connect(self._on_maps_changed, session.overlays_changed)
        connections.connect(self._on_slide_changed, session.slide_changed)
        connections.connect(self._apply_settings, session.settings_changed)
        session.layers.watch_removal(
            lambda: self._layers, lambda: self.set_active(False), connections
        )

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def close(self) -> None:
        """Switch it off and wait for the thread."""
        self.set_active(False)
        self._runner.close()

    def set_active(self, active: bool) -> None:
        """Compare with the clicked spot, or bring the map back; what is missing is reported."""
        self.active = active
        self._runner.cancel()
        if active:
            try:
                self._start()
            except DkanError as error:
                self.active = False
                self._session.message.show(str(error), warning=True)
        if not self.active:
            self._remove()
        self.changed.emit()

    def go_to(self, row: int) -> None:
        """Centre the canvas on a listed tile."""
        if self.result is not None:
            tile = self.result.grid.centres[self.result.listed[row]]
            x, y = slide_to_world(tile[None], self.result.slide)[0]
            self._session.viewer.scene.camera.center = (0, float(y), float(x))

    def _find_tiles(self) -> tuple[ViewerSlide, SlideTiles, NDArray[np.float32]]:
        """The map and the token to compare it with.

        Raises
        ------
        SpotsError
            States what is missing.
        """
        session = self._session
        slide, spot = session.require_slide(), session.spot
        if spot is None:
            raise SpotsError("Click the tile first that others are to be compared with.")
        if spot.provenance.get("slide_fingerprint") != slide.slide.fingerprint():
            raise SpotsError("The clicked spot lies on another slide; click one on this slide.")
        tiles = find_slide_tiles(session, slide)
        if tiles is None or tiles.overlays[-1].prediction.target.grid is None:
            raise SpotsError("This slide has no map yet; predict a region or the whole tissue.")
        if tiles.provenance.get("checkpoint_sha256") != spot.provenance.get("checkpoint_sha256"):
            raise SpotsError("The map is of another model than the spot; click the spot again.")
        return slide, tiles, spot.tokens[-1]

    def _start(self) -> None:
        slide, tiles, query = self._find_tiles()
        spot = self._session.spot
        assert spot is not None
        at = np.array(spot.target.spots.xy[-1], np.float64)

        def job() -> Iterator[SimilarTilesResult]:
            from ...quality.find_similar import compare_tiles, rank_tiles

            values = tiles.read((), with_tokens=True)
            assert values.tokens is not None and values.grid is not None
            cosines = compare_tiles(values.tokens, query)
            listed = rank_tiles(cosines, values.xy, at, values.pitch, N_LISTED)
            yield SimilarTilesResult(slide, values.grid, cosines, listed, values.unreliable, at)

        self._runner.start(job, self._show, self._on_end)

    def _show(self, result: SimilarTilesResult) -> None:
        session, slide, grid = self._session, result.slide, result.grid
        self._remove()
        self.result = result
        metadata = {METADATA_PREFIX: "similar tiles"}
        image = make_grid_layer(
            grid, slide.mpp, "like this spot", opacity=session.settings.opacity, metadata=metadata
        )
        image.set_tiles(grid.to_raster(result.cosines), session.settings.smooth_maps)
        image.colorbar.visible = True
        outlines = make_spots_layer(
            grid.centres[result.listed],
            slide.mpp,
            "most like this spot",
            grid.pitch_um,
            symbol="square",
            face_color="transparent",
            border_color=OUTLINE_COLOR,
            border_width=OUTLINE_WIDTH,
            metadata=metadata,
        )
        below = [slide.layer, *(o.layer for o in session.overlays if isinstance(o.layer, Image))]
        session.layers.insert(image, slide, above=below)
        session.layers.insert(outlines, slide, above=[image])
        self._layers = image, outlines
        self._hidden_maps.hide(slide)
        self._apply_settings()
        self.changed.emit()

    def _apply_settings(self) -> None:
        """Draw with the colours and the smoothness of the other maps."""
        if self.result is None or not self._layers:
            return
        image, settings = self._layers[0], self._session.settings
        assert isinstance(image, TileMapLayer)
        image.set_smooth(settings.smooth_maps)
        color_grid(image, percentile_limits([self.result.cosines]), settings.colormap)
        lines = ["like this spot", f"cosine, {len(self.result.grid):,} tiles"]
        self._legend.show("\n".join([*lines, SMOOTH_NOTE] if image.factor > 1 else lines))

    def _remove(self) -> None:
        layers, self._layers, self.result = self._layers, (), None
        if layers:
            self._session.layers.remove(*layers)
            self._hidden_maps.restore()
            self._legend.hide()

    def _on_spot_changed(self) -> None:
        if self.active:
            self.set_active(self._session.spot is not None)

    def _on_maps_changed(self) -> None:
        if self.active and self.result is not None:
            self._hidden_maps.hide(self.result.slide)

    def _on_slide_changed(self) -> None:
        if self.active and self.result is not None and self.result.slide is not self._session.slide:
            self.set_active(False)

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
            self.set_active(False)
