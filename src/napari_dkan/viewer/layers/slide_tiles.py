"""The predicted tiles of a slide, joined from its maps, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...spatial.tile_grid import TileGrid
from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from .overlay_lookup import decode_missing_genes, find_overlay_slide
from .reliability_overlay import get_reliability

if TYPE_CHECKING:
    from ...expression.panel import Panel


MPP_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class TileValues:
    """Values of N tiles, or spots, of one slide.

    Attributes
    ----------
    panel : Panel
        The G genes.
    values : (N, G) array
    xy : (N, 2) array
        Centres in level-0 px.
    pitch : float
        Level-0 px between neighbours.
    unreliable : (N,) bool array or None
        None where no reliability is known.
    grid : TileGrid or None
        The tiles, if they lie on a grid.
    tokens : (N, D) array or None
        Their fused tokens, if they were asked for.
    """

    panel: Panel
    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    pitch: float
    unreliable: NDArray[np.bool_] | None = None
    grid: TileGrid | None = None
    tokens: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class SlideTiles:
    """Maps of one slide by one checkpoint on one grid; newer ones replace tiles of older ones.

    Attributes
    ----------
    overlays : tuple of PredictionOverlay
        Oldest first.
    provenance : dict
        Of the newest map.
    """

    overlays: tuple[PredictionOverlay, ...]
    provenance: dict[str, Any]

    @property
    def panel(self) -> Panel:
        return self.overlays[-1].prediction.panel

    def read(self, symbols: Sequence[str] | None = None, with_tokens: bool = False) -> TileValues:
        """Decode genes or scores, all genes when None, and join the maps; for a worker thread."""
        newest = self.overlays[-1].prediction
        columns = (
            list(range(len(self.panel)))
            if symbols is None
            else list(dict.fromkeys(c for s in symbols for c in newest.columns_of(s)))
        )
        position: dict[tuple[int, int], int] = {}
        xy, values, tokens, unreliable, is_known = [], [], [], [], True
        for overlay in self.overlays:
            rows = np.flatnonzero(overlay.prediction.predicted_mask)
            prediction = overlay.prediction.take(rows)
            for _ in decode_missing_genes(overlay, prediction, columns):
                pass
            xy.append(prediction.target.spots.xy)
            if symbols is None:
                values.append(prediction.values)
            else:
                shown = np.empty((len(rows), len(symbols)), np.float32)
                for column, symbol in enumerate(symbols):
                    shown[:, column] = prediction.get_gene_values(symbol)
                values.append(shown)
            tokens.append(prediction.tokens if with_tokens else prediction.tokens[:, :0])
            if overlay.reference is None:
                is_known = False
                unreliable.append(np.zeros(len(rows), bool))
            else:
                scored = get_reliability(overlay.prediction, overlay.reference, rows)
                unreliable.append(np.asarray(scored.unreliable, bool))
        all_xy = np.concatenate(xy)
        for row, (x, y) in enumerate(np.round(all_xy).astype(np.int64).tolist()):
            position[x, y] = row  # the newest one
        chosen = np.array(sorted(position.values()), np.int64)
        grid = self.overlays[-1].prediction.target.grid
        pitch = self._pitch()
        if grid is not None:
            cells = np.floor(all_xy[chosen] / grid.pitch).astype(np.int64)
            grid = TileGrid(grid.pitch, grid.pitch_um, cells)
        return TileValues(
            self.panel if symbols is None else self._select_genes(symbols),
            np.concatenate(values)[chosen],
            all_xy[chosen],
            pitch,
            np.concatenate(unreliable)[chosen] if is_known else None,
            grid,
            np.concatenate(tokens)[chosen] if with_tokens else None,
        )

    def has_gene(self, symbol: str | None) -> bool:
        """Return whether the maps show a gene, or a score of their genes."""
        return self.overlays[-1].prediction.has_gene(symbol)

    def _select_genes(self, symbols: Sequence[str]) -> Panel:
        from ...expression.panel import Panel

        newest = self.overlays[-1].prediction
        scores = {s: newest.find_score(s) for s in symbols}
        return Panel(
            tuple(
                self.panel.genes[self.panel.row(s)] if score is None else score.as_gene
                for s, score in scores.items()
            )
        )

    def _pitch(self) -> float:
        prediction = self.overlays[-1].prediction
        grid, spots = prediction.target.grid, prediction.target.spots
        if grid is not None:
            return grid.pitch
        return (spots.pitch_um or prediction.spot_diameter_um) / float(self.provenance["mpp"])


def find_slide_tiles(session: ViewerSession, slide: ViewerSlide) -> SlideTiles | None:
    """Return the maps of a slide that belong together.

    Those of the selected map, else of the current checkpoint, else of the most tiles. Clicked
    spots are no map, and maps of another pixel size than the slide's are out of date.
    """
    groups: dict[tuple[Any, ...], list[PredictionOverlay]] = {}
    for overlay in session.overlays:
        prediction = overlay.prediction
        provenance, grid = prediction.provenance, prediction.target.grid
        is_current = abs(float(provenance.get("mpp", np.nan)) - slide.mpp) <= MPP_TOLERANCE
        if overlay.from_clicks or not is_current or not prediction.predicted_mask.any():
            continue
        if find_overlay_slide(session, overlay) is not slide:
            continue
        kind = id(overlay) if grid is None else round(grid.pitch, 3)
        sha256 = provenance.get("checkpoint_sha256")
        key = (sha256, grid is not None, kind, prediction.panel.symbols)
        groups.setdefault(key, []).append(overlay)
    if not groups:
        return None
    active = session.viewer.layers.selection.active
    current = None if session.checkpoint is None else session.checkpoint.sha256

    def rank(item: tuple[tuple[Any, ...], list[PredictionOverlay]]) -> tuple[bool, bool, int]:
        (sha256, *_), overlays = item
        n_tiles = sum(int(o.prediction.predicted_mask.sum()) for o in overlays)
        return any(o.layer is active for o in overlays), sha256 == current, n_tiles

    overlays = max(groups.items(), key=rank)[1]
    return SlideTiles(tuple(overlays), overlays[-1].prediction.provenance)
