"""The spread of predictions: decoded where a network has one, and drawn as a veil over a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import METADATA_PREFIX, ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections
from ..worker import JobFailure, JobRunner
from .canvas_legend import LEGEND_PREFIX, CanvasLegend, wrap_units
from .contrast_limits import percentile_limits
from .overlay_lookup import find_overlay_slide, get_selected_map
from .prediction_layers import COLOR_BAR_SIZE
from .tile_map_layer import TileMapLayer
from .value_layers import color_grid, make_grid_layer

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...model import Checkpoint


DECODE_ROWS = 256  # at once; a network that samples takes milliseconds a tile
# The map stays in colour where the prediction is sure, and fades to white.
VEIL = Colormap([[1, 1, 1, 0], [1, 1, 1, 0.9]], name="spread")


def find_spread_checkpoint(session: ViewerSession, prediction: Prediction) -> Checkpoint | None:
    """Return the checkpoint that made a prediction, if it is loaded and has a spread."""
    checkpoint = session.checkpoint
    if checkpoint is None or not checkpoint.network.has_spread:
        return None
    is_of_checkpoint = prediction.provenance.get("checkpoint_sha256") == checkpoint.sha256
    return checkpoint if is_of_checkpoint else None


def decode_spread(
    checkpoint: Checkpoint,
    tokens: NDArray[np.float32],
    symbols: Sequence[str],
    spread: NDArray[np.float32],
) -> Iterator[float]:
    """Decode the spread of genes in place; for a worker thread.

    Parameters
    ----------
    tokens : (N, D) array
    symbols : sequence of str
        K genes; those outside the checkpoint's panel have no spread.
    spread : (N, K) array

    Yields
    ------
    float
        Fraction that is done.
    """
    from ...inference.gene_decoder import GeneDecoder

    decoder, panel = GeneDecoder(checkpoint.network), checkpoint.panel
    columns = [i for i, symbol in enumerate(symbols) if symbol in panel]
    genes = [panel.row(symbols[i]) for i in columns]
    spread[:] = np.nan
    for start in range(0, len(tokens) if genes else 0, DECODE_ROWS):
        rows = slice(start, start + DECODE_ROWS)
        found = decoder.decode_with_spread(tokens[rows], genes)[1]
        if found is not None:
            spread[rows, columns] = found
        yield min(1.0, (start + DECODE_ROWS) / len(tokens))


class SpreadMap:
    """A white veil over the map of the current slide, denser where the spread is larger."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.layer: TileMapLayer | None = None
        self._shown_for: tuple[object, ...] | None = None
        self._runner = JobRunner("spread")
        self._legend = CanvasLegend(session, LEGEND_PREFIX + "spread", "top_right", 10)
        connections.connect(
            self.refresh,
            session.gene_changed,
            session.settings_changed,
            session.slide_changed,
            session.overlays_changed,
            session.overlay_updated,
        )
        session.layers.watch_removal(
            lambda: () if self.layer is None else (self.layer,), self._switch_off, connections
        )

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def close(self) -> None:
        """Remove the veil and wait for the thread."""
        self._remove()
        self._runner.close()

    def is_available(self) -> bool:
        """Return whether the loaded network, or a map from a file, has a spread."""
        session = self._session
        has_network = session.checkpoint is not None and session.checkpoint.network.has_spread
        return has_network or any(o.prediction.spread is not None for o in session.overlays)

    def refresh(self, event: object = None) -> None:
        """Follow map, gene and the setting `show_spread`."""
        session, gene = self._session, self._session.gene
        overlay = self._find_map() if session.settings.show_spread else None
        slide = None if overlay is None else find_overlay_slide(session, overlay)
        if overlay is None or gene is None or slide is None:
            self._runner.cancel()
            self._remove()
            return
        key = (overlay, gene, int(overlay.prediction.predicted_mask.sum()))
        is_growing = self._shown_for is not None and self._shown_for[:2] == key[:2]
        if key == self._shown_for or (is_growing and self.busy):  # a growing map: when it is done
            return
        self._shown_for = key
        prediction = overlay.prediction
        checkpoint = find_spread_checkpoint(session, prediction)

        def job() -> Iterator[NDArray[np.float32] | None]:
            rows = np.flatnonzero(prediction.predicted_mask)
            column = np.full((len(rows), 1), np.nan, np.float32)
            if prediction.spread is not None:
                column = prediction.spread[rows][:, prediction.columns_of(gene)]
            elif checkpoint is not None:
                for _ in decode_spread(checkpoint, prediction.tokens[rows], [gene], column):
                    yield None
            values = np.full(len(prediction.tokens), np.nan, np.float32)
            values[rows] = column[:, 0]
            yield values

        def receive(values: NDArray[np.float32] | None) -> None:
            if values is not None:
                self._show(gene, slide, prediction, values)

        self._runner.start(job, receive, self._on_end)

    def _find_map(self) -> PredictionOverlay | None:
        """The selected map if its gene has a spread; that of a score of several genes has none."""
        session = self._session
        overlay = get_selected_map(session)
        if overlay is None or overlay.prediction.target.grid is None:
            return None
        prediction = overlay.prediction
        known = prediction.spread is not None or find_spread_checkpoint(session, prediction)
        is_gene = session.gene in prediction.panel
        return overlay if known and is_gene else None

    def _show(
        self, gene: str, slide: ViewerSlide, prediction: Prediction, values: NDArray[np.float32]
    ) -> None:
        session, grid = self._session, prediction.target.grid
        assert grid is not None
        self._remove_layer()
        layer = make_grid_layer(
            grid, slide.mpp, f"{gene} spread", metadata={METADATA_PREFIX: "spread"}
        )
        layer.set_tiles(grid.to_raster(values), session.settings.smooth_maps)
        limits = percentile_limits([values])
        color_grid(layer, limits, VEIL)
        layer.colorbar.size, layer.colorbar.visible = COLOR_BAR_SIZE, True
        below = [slide.layer, *(o.layer for o in session.overlays if isinstance(o.layer, Image))]
        session.layers.insert(layer, slide, above=below)
        self.layer = layer
        checkpoint = find_spread_checkpoint(session, prediction)
        meaning = "" if checkpoint is None else checkpoint.network.spread_meaning
        meaning = str(prediction.provenance.get("spread", meaning))
        lines = f"white: spread of {gene}, {limits[0]:.2f} to {limits[1]:.2f}\n{meaning}"
        self._legend.show(wrap_units(lines.strip()))

    def _remove_layer(self) -> None:
        layer, self.layer = self.layer, None
        self._session.layers.remove(layer)

    def _remove(self) -> None:
        self._shown_for = None
        if self.layer is not None:
            self._remove_layer()
            self._legend.hide()

    def _switch_off(self) -> None:
        """The user removed the layer."""
        self._remove()
        self._session.change_settings(show_spread=False)

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
        else:
            self.refresh()
