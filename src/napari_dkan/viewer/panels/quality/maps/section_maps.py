"""Points layers of a section: measured, predicted and residual.

Measured and predicted share their contrast limits; the residual has its own, symmetric around 0.
"""

from __future__ import annotations

import numpy as np
from napari.layers import Layer, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from psygnal import Signal

from .....inference.map_colors import RESIDUAL_COLORS
from .....spatial.coordinates import swap_xy
from ....layers.canvas_legend import LEGEND_PREFIX, CanvasLegend
from ....layers.contrast_limits import percentile_limits, symmetric_limits
from ....layers.name_halos import is_name_halo
from ....layers.region_objects import is_region_layer
from ....layers.value_layers import VALUE_COLUMN, color_spots, shrink_color_bar
from ....session.slide_layer import AXIS_LABELS, METADATA_PREFIX, MICROMETER_UNITS, PIXEL_UNITS
from ....widgets.signal_connections import SignalConnections
from ..data.loaded_section import SECTION_KEY, LoadedSection, parse_finite
from ..data.quality_model import MapKind, MapLayout, QualityModel

SECTION_LEGEND = LEGEND_PREFIX + "quality_legend"
PREDICTED_TITLE, RESIDUAL_TITLE = "predicted at spots", "residual"
DIVERGING_COLORMAP = Colormap(list(RESIDUAL_COLORS), name="blue-white-orange")
SCALE_BAR_ROOM_PX = 360  # of the width of the canvas, with a legend beside it
BAR_POSITION = "bottom_left"  # of a map on the slide, with its name
OFF_TISSUE_COLOR, SELECTED_SPOT_COLOR = "#ff1744", "#00e5ff"
BORDER_WIDTH, MARKED_BORDER_WIDTH = 0.04, 0.3  # relative to the size of a spot
_DIAMETER_PER_PITCH = 0.62  # where the files do not state the diameter


class SectionMaps:
    """Draws the chosen section and updates it with gene, limits, colours and chosen spot."""

    layers_created = Signal()  # the maps of the chosen section are new

    def __init__(self, model: QualityModel, connections: SignalConnections) -> None:
        self._model = model
        self._session = session = model.session
        self._predicted: Points | None = None
        self._residual: Points | None = None
        self._legend = CanvasLegend(session, SECTION_LEGEND, "top_left", 8)
        # Beside each other name, bar and caption would reach the scale bar.
        session.viewer.canvas.overlay_tiling.bottom_left = "vertical"
        connections.connect(self.refresh, model.section_changed, model.comparison_changed)
        connections.connect(
            self.draw, model.prediction_updated, session.gene_changed, session.settings_changed
        )
        connections.connect(self._mark_spots, model.spot_changed)
        connections.connect(self._restore_missing, model.layout_changed)
        connections.connect(self._update_legend, model.landmarks_changed, model.layout_changed)
        connections.connect(self._place_color_bars, model.layout_changed)
        connections.connect(self._update_legend, session.viewer.canvas.events.size)

    def existing_layers(self) -> tuple[Points, ...]:
        """Return the measured, predicted and residual layer, without those that do not exist."""
        section, layers = self._model.section, self._session.viewer.layers
        measured = None if section is None else section.layer
        maps = measured, self._predicted, self._residual
        return tuple(layer for layer in maps if layer is not None and layer in layers)

    # ---- sections -----------------------------------------------------------------------

    def add_section(self, section: LoadedSection, layer: Points | None) -> None:
        """Give a section its layer: the empty one of a dropped file, or a new one."""
        viewer = self._session.viewer
        given = layer if layer is not None and layer in viewer.layers else None
        section.layer = _make_points(MapKind.MEASURED, section) if given is None else given
        _show_name_overlay(section.layer)
        section.layer.metadata = {
            **section.layer.metadata,
            SECTION_KEY: section,
            METADATA_PREFIX: "measured",
        }
        session = self._session
        session.titles.set_title(section.layer, "measured", section.name)
        self.update_positions(section)
        if given is None:
            session.layers.insert(section.layer, above=self._below_regions())

    def update_positions(self, section: LoadedSection) -> None:
        """Draw a section at its new position."""
        if section.layer is None:
            return
        _place_points(section.layer, section, section.xy)
        if section.slide is not None:
            self._session.layers.attach(section.slide, section.layer)
        self._remove_map_layers()
        self._draw_total_counts(section)
        self._mark_spots()

    def _restore_missing(self) -> None:
        """Create deleted maps again when the layout asks for them."""
        if self._model.pair is not None and len(self.existing_layers()) < len(MapKind):
            self._remove_map_layers()
            self.draw()

    # ---- drawing ------------------------------------------------------------------------

    def refresh(self) -> None:
        """Draw another section, or one whose comparison changed."""
        model = self._model
        if model.pair is None:
            self._remove_map_layers()
            if model.section is not None:
                self._draw_total_counts(model.section)
        self.draw()
        self._mark_spots()

    def draw(self, event: object = None) -> None:
        """Draw the current gene with the current limits and colours."""
        model, session = self._model, self._session
        section, pair, gene = model.section, model.pair, session.gene
        self._update_legend()
        if section is None or section.layer is None or pair is None or gene is None:
            return
        is_new = self._predicted is None
        if is_new:
            self._add_map_layers(section)
        measured, predicted = pair.measured_values(gene), pair.predicted_values(gene)
        residual = predicted - measured
        chosen = session.settings.contrast_limits.chosen_for(gene)
        limits = chosen or percentile_limits([measured, predicted])
        all_spots = np.full(section.data.n_obs, np.nan, np.float32)
        all_spots[pair.measured.labels.rows] = measured
        colormap = session.settings.colormap
        for layer, title, values, map_limits, map_colormap in (
            (section.layer, "measured", all_spots, limits, colormap),
            (self._predicted, PREDICTED_TITLE, predicted, limits, colormap),
            (
                self._residual,
                RESIDUAL_TITLE,
                residual,
                symmetric_limits(residual),
                DIVERGING_COLORMAP,
            ),
        ):
            if layer is not None:
                _color_by_value(layer, gene, values, map_limits, map_colormap)
                session.titles.set_title(layer, f"{gene} {title}", section.name)
        self._place_color_bars()
        if is_new:
            self._mark_spots()
            self.layers_created.emit()

    def _draw_total_counts(self, section: LoadedSection) -> None:
        """Draw the counts of each spot, before there are labels."""
        if section.layer is None:
            return
        counts = section.total_counts_log10()
        self._session.titles.set_title(section.layer, "measured", section.name)
        _color_by_value(
            section.layer, "all counts, log10", counts, percentile_limits([counts]), "gray"
        )

    def _add_map_layers(self, section: LoadedSection) -> None:
        pair, session = self._model.pair, self._session
        assert pair is not None and section.slide is not None
        layers = []
        for kind in (MapKind.PREDICTED, MapKind.RESIDUAL):
            layer = _make_points(kind, section)
            layer.metadata = {METADATA_PREFIX: pair.prediction.provenance | {"kind": str(kind)}}
            _place_points(layer, section, pair.prediction.target.spots.xy)
            layers.append(layer)
        self._predicted, self._residual = layers
        for layer in layers:
            session.layers.insert(layer, section.slide, above=self._below_regions())

    def _below_regions(self) -> list[Layer]:
        """The layers on which spots are drawn: regions and their names stay above."""
        layers = self._session.viewer.layers
        return [one for one in layers if not (is_region_layer(one) or is_name_halo(one))]

    def _remove_map_layers(self) -> None:
        removed = self._predicted, self._residual
        self._predicted = self._residual = None
        self._session.layers.remove(*removed)

    def _mark_spots(self) -> None:
        """Cross out spots off the tissue in red and ring the chosen spot."""
        model = self._model
        section, pair = model.section, model.pair
        if section is None or section.layer is None:
            return
        off = np.zeros(section.data.n_obs, bool)
        if section.placement is not None:
            off = section.placement.off_tissue
        rows = np.arange(len(off)) if pair is None else pair.measured.labels.rows
        chosen = None
        if model.spot_row is not None and pair is not None:
            chosen = rows[pair.prediction_row(model.spot_row)]
        for layer in self.existing_layers():
            of_layer = np.arange(len(off)) if layer is section.layer else rows
            _mark_points(layer, off[of_layer], None if chosen is None else of_layer == chosen)

    def _update_legend(self, event: object = None) -> None:
        """Write what the colour bars measure."""
        model, pair, session = self._model, self._model.pair, self._session
        gene = session.gene
        is_shown = model.section is not None and model.landmarks is None
        is_side_by_side = model.layout is MapLayout.SIDE_BY_SIDE
        self._place_scale_bar(is_shown and not is_side_by_side)
        if not is_shown:
            self._legend.hide()
            return
        text = "counts of all genes at each spot,\nlog10(1 + counts)"
        if pair is not None and gene is not None:
            units = "expression, log scale"
            if session.settings.contrast_limits.chosen_for(gene) is None:
                units += "\nlimits of these spots"  # a tile map of the gene has other ones
            if is_side_by_side or model.visible_map is MapKind.RESIDUAL:
                units += "\nresidual: predicted - measured"
            if gene not in pair.measured.panel:
                units = f"{gene} is not measured in {pair.measured.name}"
            text = f"{gene} at {len(pair.prediction.target):,} spots\n{units}"
        # Side by side a cell has its map's name below; stacked, tile maps have their legend above.
        self._legend.show(text, "top_left" if is_side_by_side else "bottom_left")

    def _place_scale_bar(self, is_legend_below: bool) -> None:
        """Place it below the legend where the canvas is too narrow for both beside each other."""
        canvas = self._session.viewer.canvas
        is_stacked = is_legend_below and canvas.size[1] < SCALE_BAR_ROOM_PX
        canvas.overlays.scale_bar.position = "bottom_left" if is_stacked else "bottom_right"

    def _place_color_bars(self) -> None:
        """Place each bar with its caption; that of a tile map, with other limits, is above."""
        layers = self.existing_layers()
        is_grid = self._model.layout is MapLayout.SIDE_BY_SIDE and len(layers) == len(MapKind)
        for layer in layers:
            layer.face_colorbar.position = "top_right" if is_grid else BAR_POSITION
        if self._predicted is not None and len(self._predicted.data):
            # While both are drawn, the bar of the measured map is that of both.
            self._predicted.face_colorbar.visible = is_grid or not self._model.swipe


def _make_points(kind: str, section: LoadedSection) -> Points:
    layer = Points(
        np.empty((0, 2)),
        ndim=2,
        name=f"{kind} - {section.name}",
        symbol="disc",
        axis_labels=AXIS_LABELS,
        border_color="white",
        border_width=BORDER_WIDTH,
        features={VALUE_COLUMN: np.empty(0, np.float32)},
    )
    _show_name_overlay(layer)
    return layer


def _show_name_overlay(layer: Points) -> None:
    """Show the layer's name on the canvas, so that it is clear which map is which."""
    title = layer.name_overlay
    title.visible, title.position, title.font_size = True, "bottom_left", 9
    shrink_color_bar(layer.face_colorbar)
    layer.face_colorbar.position = BAR_POSITION


def _place_points(layer: Points, section: LoadedSection, xy: NDArray[np.float64]) -> None:
    """Place spots at level-0 px (N, 2), in the scale of the slide."""
    slide = section.slide
    mpp = section.source_mpp if slide is None else slide.mpp
    known = mpp is not None and (slide is None or slide.pixel_size is not None)
    mpp = mpp or 1.0
    layer.data = swap_xy(xy)
    layer.size = _diameter_px(section, xy, mpp)
    layer.scale = (mpp, mpp)
    layer.units = MICROMETER_UNITS if known else PIXEL_UNITS


def _diameter_px(section: LoadedSection, xy: NDArray[np.float64], mpp: float) -> float:
    uns = section.data.uns
    diameter = parse_finite(uns.get("spot_diameter_um"))
    pitch = parse_finite(uns.get("spot_pitch_um"))
    if diameter is None and pitch is not None:
        diameter = _DIAMETER_PER_PITCH * pitch
    if diameter is not None:
        return diameter / mpp
    span = np.ptp(xy, axis=0) if len(xy) else np.ones(2)
    return float(
        max(1.0, _DIAMETER_PER_PITCH * np.sqrt(max(span[0] * span[1], 1.0) / max(len(xy), 1)))
    )


def _color_by_value(
    layer: Points,
    gene: str,
    values: NDArray[np.float32],
    limits: tuple[float, float],
    colormap: str | Colormap,
) -> None:
    color_spots(layer, values, limits, colormap, gene)
    layer.face_colorbar.visible |= bool(len(values))


def _mark_points(
    layer: Points, off_tissue: NDArray[np.bool_], selected: NDArray[np.bool_] | None
) -> None:
    if len(off_tissue) != len(layer.data):
        return  # the layer is being placed
    symbols = np.where(off_tissue, "x", "disc")
    colors = np.where(off_tissue, OFF_TISSUE_COLOR, "white").astype(object)
    widths = np.where(off_tissue, MARKED_BORDER_WIDTH, BORDER_WIDTH)
    if selected is not None:
        colors[selected], widths[selected] = SELECTED_SPOT_COLOR, MARKED_BORDER_WIDTH
    layer.symbol = symbols
    layer.border_color = list(colors)
    layer.border_width = widths
