"""Two or three genes over the slide in added colours, with a legend on the canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.components.overlays import TextOverlay
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from ...errors import SpotsError
from ...quality.color_mix import MIX_COLORS, MixColor, mix_genes
from ...spatial.coordinates import swap_xy
from ...spatial.tile_grid import TileGrid
from ..jobs.tile_reader import TileReader
from ..layers.canvas_legend import LEGEND_PREFIX
from ..layers.contrast_limits import percentile_limits
from ..layers.hidden_maps import HiddenMaps
from ..layers.slide_tiles import find_slide_tiles
from ..layers.tile_map_layer import SMOOTH_NOTE, find_factor, interpolate_tiles
from ..layers.value_layers import grid_transform
from ..session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS, ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import SignalConnections

MIX_LEGEND = LEGEND_PREFIX + "mix_"  # with the number of the gene, 0 for what holds for all
NOTE_COLOR = MixColor("white", (1.0, 1.0, 1.0))
LEGEND_TINT = 0.35  # of white in the colours of the legend, which are read on black


class ColorMix:
    """Shows several genes of the current slide's map as one layer, in place of the map.

    Attributes
    ----------
    genes : tuple of str
        Empty while it is off.
    limits : tuple of pairs
        Of the genes, once they are drawn.
    layer : Image or None
    """

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.genes: tuple[str, ...] = ()
        self.limits: tuple[tuple[float, float], ...] = ()
        self.layer: Image | None = None
        self._slide: ViewerSlide | None = None  # of the layer
        self._factor = 1  # pixels of the layer per side of a tile
        self._row_of_cell: dict[tuple[int, int], int] = {}
        self._hidden_maps = HiddenMaps(session)
        self.reader = TileReader(session, connections)
        connections.connect(self._draw, self.reader.changed, session.settings_changed)
        connections.connect(self._hide_maps, session.overlays_changed)
        session.layers.watch_removal(lambda: [self.layer], lambda: self.show(()), connections)
        connections.add_callback(session.viewer.mouse_move_callbacks, self._on_mouse_move)

    @property
    def colors(self) -> tuple[MixColor, ...]:
        """The colour of each gene."""
        return MIX_COLORS.get(len(self.genes), ())

    def can_show(self, genes: tuple[str, ...]) -> bool:
        """Return whether the current slide has a map of tiles with these genes."""
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return False
        tiles = find_slide_tiles(self._session, slide)
        is_map = tiles is not None and tiles.overlays[-1].prediction.target.grid is not None
        return is_map and tiles is not None and all(tiles.has_gene(gene) for gene in genes)

    def close(self) -> None:
        """Switch it off."""
        self.show(())

    def show(self, genes: tuple[str, ...]) -> None:
        """Show two or three genes; () brings the map back.

        Raises
        ------
        SpotsError
            Of another number of genes.
        """
        if genes and len(genes) not in MIX_COLORS:
            raise SpotsError(
                f"Colours are mixed of two or three genes, not of {len(genes)}; "
                "'side by side' shows up to nine."
            )
        self.genes, self.limits = genes, ()
        self.reader.read(genes)
        if not genes:
            self._remove()
        self.changed.emit()

    def _remove(self) -> None:
        layer, self.layer, self._slide = self.layer, None, None
        self._session.layers.remove(layer)
        self._hidden_maps.restore()
        for number in range(max(MIX_COLORS) + 1):
            self._set_legend(number, "", None)

    def _draw(self) -> None:
        """Draw the values that were read, with each gene's limits."""
        values, slide, session = self.reader.values, self.reader.slide, self._session
        if not self.genes:
            return
        if values is None or values.grid is None or slide is None:
            if self.layer is not None:
                self._remove()
            return
        if values.panel.symbols != self.genes:
            return  # of the genes before
        chosen = session.settings.contrast_limits
        self.limits = tuple(
            chosen.chosen_for(gene) or percentile_limits([values.values[:, column]])
            for column, gene in enumerate(self.genes)
        )
        grid = values.grid
        rasters = [grid.to_raster(column) for column in values.values.T]
        self._factor = find_factor(rasters[0]) if session.settings.smooth_maps else 1
        image = _mix_rasters(rasters, self.limits, self._factor)
        cells = (grid.cells - grid.first_cell).tolist()
        self._row_of_cell = {(x, y): row for row, (x, y) in enumerate(cells)}
        if self._slide is not slide:
            self._remove()
        if self.layer is None:
            self._add_layer(slide, grid, image)
        else:
            transform = grid_transform(grid, slide.mpp, self._factor)
            self.layer.data = image
            self.layer.scale, self.layer.translate = transform["scale"], transform["translate"]
        assert self.layer is not None
        self.layer.name = " + ".join(self.genes)
        self.layer.opacity = session.settings.opacity
        self._hide_maps()
        self._set_legend(0, SMOOTH_NOTE if self._factor > 1 else "", NOTE_COLOR)
        for number, (gene, color, limits) in enumerate(
            zip(self.genes, self.colors, self.limits, strict=True), 1
        ):
            text = f"{gene}, {color.name}\npredicted {limits[0]:.2f} to {limits[1]:.2f}"
            self._set_legend(number, text, color)
        for number in range(len(self.genes) + 1, max(MIX_COLORS) + 1):
            self._set_legend(number, "", None)
        self.changed.emit()

    def _add_layer(self, slide: ViewerSlide, grid: TileGrid, image: NDArray[np.uint8]) -> None:
        session = self._session
        self.layer, self._slide = (
            Image(
                image,
                rgb=True,
                **grid_transform(grid, slide.mpp, self._factor),
                units=MICROMETER_UNITS,
                axis_labels=AXIS_LABELS,
                interpolation2d="nearest",
                metadata={METADATA_PREFIX: "several genes"},
            ),
            slide,
        )
        below = [slide.layer, *(o.layer for o in session.overlays if isinstance(o.layer, Image))]
        session.layers.insert(self.layer, slide, above=below)

    def _hide_maps(self) -> None:
        if self.layer is not None and self._slide is not None:
            self._hidden_maps.hide(self._slide)

    def _set_legend(self, number: int, text: str, color: MixColor | None) -> None:
        overlays, name = self._session.viewer.canvas.overlays, f"{MIX_LEGEND}{number}"
        if name not in overlays:
            if color is None:
                return
            overlays[name] = TextOverlay(
                position="top_right", font_size=9, box=True, box_color="black"
            )
        legend = overlays[name]
        if color is not None:
            rgb = np.array(color.rgb)
            legend.color = (*(rgb + LEGEND_TINT * (1 - rgb)), 1.0)
        legend.text, legend.visible = text, bool(text)

    def _on_mouse_move(self, viewer: object, event: object) -> None:
        """Show the values of the tile under the cursor."""
        values = self.reader.values
        if self.layer is None or not self.layer.visible or values is None:
            return
        world = tuple(self._session.viewer.cursor.position[-2:])
        if self._session.is_click_claimed(world):
            return
        position = (np.asarray(self.layer.world_to_data(world)) + 0.5) / self._factor
        column, row = swap_xy(np.floor(position).astype(np.int64))
        tile = self._row_of_cell.get((int(column), int(row)))
        if tile is not None and tile < len(values.values):
            pairs = zip(self.genes, values.values[tile], strict=True)
            lines = [f"{gene} predicted {value:.2f}" for gene, value in pairs]
            QToolTip.showText(QCursor.pos(), "\n".join(lines))


def _mix_rasters(
    rasters: Sequence[NDArray[np.float32]], limits: Sequence[tuple[float, float]], factor: int
) -> NDArray[np.uint8]:
    """Colours (rows, columns, 4) of maps of K genes; smooth ones are interpolated before."""
    values = np.stack([interpolate_tiles(raster, factor) for raster in rasters], axis=-1)
    rgba = mix_genes(values.reshape(-1, len(rasters)), limits)
    return rgba.reshape(*values.shape[:2], 4)
