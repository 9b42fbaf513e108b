"""Points layers of a section: measured, predicted and residual.

Measured and predicted share their contrast limits; the residual has its own, symmetric around 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from napari.components.overlays import TextOverlay
from napari.layers import Layer, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from .....spatial.coordinates import swap_xy
from ....layers.canvas_legend import wrap_units
from ....layers.contrast_limits import percentile_limits
from ....session.layer_stack import remove_layers
from ....session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, PIXEL_UNITS
from ....widgets.signal_connections import SignalConnections
from ..data.loaded_section import SECTION_KEY, LoadedSection, parse_finite
from ..data.quality_model import MapLayout

if TYPE_CHECKING:
    from ..quality_controller import QualityController


SECTION_LEGEND = "napari_dkan_quality_legend"
RESIDUAL_TITLE = "residual (pred. - meas.)"
RESULT_KEY = "napari-dkan"  # a layer that shows results; not one to predict at
# From blue over near-white to orange: told apart with every kind of colour blindness.
DIVERGING_COLORMAP = Colormap(
    ["#08519c", "#6baed6", "#f7f7f7", "#fd8d3c", "#a63603"], name="blue-white-orange"
)
OFF_TISSUE_COLOR, SELECTED_SPOT_COLOR = "#ff1744", "#00e5ff"
_RESIDUAL_PERCENTILE = 98.0  # percentile of the absolute residuals that the colours reach to
_DIAMETER_PER_PITCH = 0.62  # of the pitch, where the files do not tell the diameter


class SectionMaps:
    """Draws the chosen section and keeps it in step with gene, limits, colours and spot."""

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        self._quality = quality
        self._session = session = quality.session
        self.predicted: Points | None = None
        self.residual: Points | None = None
        self._layer_names: dict[int, str] = {}  # as given here: what a person renamed stays
        self.limits = 0.0, 1.0
        connections.connect(self.refresh, quality.section_changed, quality.comparison_changed)
        connections.connect(
            self.draw, quality.prediction_updated, session.gene_changed, session.settings_changed
        )
        connections.connect(self._mark_spots, quality.spot_changed)
        connections.connect(self._update_legend, quality.landmarks_changed, quality.layout_changed)

    @property
    def measured(self) -> Points | None:
        section = self._quality.section
        return None if section is None else section.layer

    def existing_layers(self) -> tuple[Points, ...]:
        """Measured, predicted, residual, as far as they are there."""
        layers = self._session.viewer.layers
        made = self.measured, self.predicted, self.residual
        return tuple(m for m in made if m is not None and m in layers)

    # ---- sections -----------------------------------------------------------------------

    def add_section(self, section: LoadedSection, layer: Points | None) -> None:
        """Give a section its layer: the empty one of a drop, or a new one."""
        viewer = self._session.viewer
        given = layer if layer is not None and layer in viewer.layers else None
        section.layer = _make_points("measured", section) if given is None else given
        _show_name_overlay(section.layer)
        section.layer.metadata = {
            **section.layer.metadata,
            SECTION_KEY: section,
            RESULT_KEY: "measured",
        }
        self._layer_names[id(section.layer)] = section.layer.name
        self._set_layer_name(section.layer, f"measured - {section.name}")
        self.update_positions(section)
        if given is None:
            _append_layer(viewer.layers, section.layer)

    def update_positions(self, section: LoadedSection) -> None:
        """Its spots lie somewhere else."""
        if section.layer is None:
            return
        _place_points(section.layer, section, section.xy)
        if section.slide is not None:
            self._session.layers.attach(section.slide, section.layer)
        self._remove_map_layers()
        self._draw_total_counts(section)
        self._mark_spots()

    def restore_missing(self) -> None:
        """Maps that a person deleted come back when they are asked for."""
        if self._quality.pair is not None and len(self.existing_layers()) < 3:
            self._remove_map_layers()
            self.draw()

    # ---- drawing ------------------------------------------------------------------------

    def refresh(self) -> None:
        """Another section, or other values: begin anew."""
        quality = self._quality
        if quality.pair is None:
            self._remove_map_layers()
            if quality.section is not None:
                self._draw_total_counts(quality.section)
        self.draw()
        self._mark_spots()

    def draw(self, event: object = None) -> None:
        """The chosen gene, in the colours of now."""
        quality, session = self._quality, self._session
        section, pair, gene = quality.section, quality.pair, session.gene
        self._update_legend()
        if section is None or section.layer is None or pair is None or gene is None:
            return
        begun = self.predicted is None
        if begun:
            self._add_map_layers(section)
        measured, predicted = pair.measured_values(gene), pair.predicted_values(gene)
        residual = predicted - measured
        self.limits = session.settings.contrast_limits.fixed or percentile_limits(
            [measured, predicted]
        )
        everywhere = np.full(section.data.n_obs, np.nan, np.float32)
        everywhere[pair.measured.labels.rows] = measured
        colours = session.settings.colormap
        _color_by_value(section.layer, gene, everywhere, self.limits, colours)
        self._set_layer_name(section.layer, f"{gene} measured - {section.name}")
        if self.predicted is not None:
            _color_by_value(self.predicted, gene, predicted, self.limits, colours)
            self._set_layer_name(self.predicted, f"{gene} predicted - {section.name}")
        if self.residual is not None:
            reach = _residual_limit(residual)
            _color_by_value(self.residual, gene, residual, (-reach, reach), DIVERGING_COLORMAP)
            self._set_layer_name(self.residual, f"{gene} {RESIDUAL_TITLE} - {section.name}")
        if begun:
            self._mark_spots()
            quality.layout_changed.emit()

    def _draw_total_counts(self, section: LoadedSection) -> None:
        """Before there are labels: how much was counted at each spot."""
        if section.layer is None:
            return
        counts = np.log10(1 + np.asarray(section.data.X.sum(axis=1), np.float32).ravel())
        self._set_layer_name(section.layer, f"measured - {section.name}")
        _color_by_value(
            section.layer, "all counts, log10", counts, percentile_limits([counts]), "gray"
        )

    def _add_map_layers(self, section: LoadedSection) -> None:
        quality, session = self._quality, self._session
        assert quality.pair is not None and section.slide is not None
        xy = quality.pair.prediction.target.spots.xy
        made = []
        for kind in ("predicted", "residual"):
            layer = _make_points(kind, section)
            layer.metadata = {RESULT_KEY: quality.pair.prediction.provenance | {"kind": kind}}
            _place_points(layer, section, xy)
            session.layers.attach(section.slide, layer)
            self._layer_names[id(layer)] = layer.name
            made.append(layer)
        self.predicted, self.residual = made
        for layer in made:
            _append_layer(session.viewer.layers, layer)

    def _remove_map_layers(self) -> None:
        gone = self.predicted, self.residual
        self.predicted = self.residual = None
        remove_layers(self._session.viewer.layers, gone)

    def _mark_spots(self) -> None:
        """Spots off the tissue are crossed out in red; the chosen one is ringed."""
        quality = self._quality
        section, pair = quality.section, quality.pair
        if section is None or section.layer is None:
            return
        off = np.zeros(section.data.n_obs, bool)
        if section.placement is not None:
            off = section.placement.off_tissue
        rows = np.arange(len(off)) if pair is None else pair.measured.labels.rows
        chosen = (
            None
            if quality.spot_row is None or pair is None
            else rows[pair.prediction_row(quality.spot_row)]
        )
        for layer in self.existing_layers():
            of_layer = np.arange(len(off)) if layer is section.layer else rows
            _mark_points(layer, off[of_layer], None if chosen is None else of_layer == chosen)

    def _set_layer_name(self, layer: Layer, name: str) -> None:
        if re.sub(r" \[\d+\]$", "", layer.name) == self._layer_names.get(id(layer), layer.name):
            self._layer_names[id(layer)] = name
            layer.name = name

    def _update_legend(self) -> None:
        """What the colour bars measure."""
        overlays = self._session.viewer.canvas.overlays
        pair, gene, section = self._quality.pair, self._session.gene, self._quality.section
        if SECTION_LEGEND not in overlays:
            if section is None:
                return
            overlays[SECTION_LEGEND] = TextOverlay(position="top_left", font_size=8)
        legend = overlays[SECTION_LEGEND]
        # Side by side a cell has its map's name below; stacked, the maps' bars are above.
        beside = self._quality.layout is MapLayout.SIDE_BY_SIDE
        legend.position = "top_left" if beside else "bottom_left"
        legend.visible = section is not None and self._quality.landmarks is None
        if section is not None:
            legend.text = "counts of all genes at each spot,\nlog10(1 + counts)"
        if pair is not None and gene is not None:
            text = wrap_units(pair.prediction.label_scale.name)
            if gene not in pair.measured.panel:
                text = f"{gene} is not measured in {pair.measured.name}"
            legend.text = f"{gene} at {len(pair.prediction.target):,} spots\n{text}"


def _make_points(kind: str, section: LoadedSection) -> Points:
    layer = Points(
        np.empty((0, 2)),
        ndim=2,
        name=f"{kind} - {section.name}",
        symbol="disc",
        axis_labels=AXIS_LABELS,
        border_color="white",
        border_width=0.04,
        features={"value": np.empty(0, np.float32)},
    )
    _show_name_overlay(layer)
    return layer


def _show_name_overlay(layer: Points) -> None:
    """The layer's name on the canvas: which map is which must not be guessed."""
    title = layer.name_overlay
    title.visible, title.position, title.font_size = True, "bottom_left", 9
    layer.face_colorbar.size, layer.face_colorbar.font_size = (16, 100), 8


def _append_layer(layers: list[Layer], layer: Points) -> None:
    """On top, leaving the person's selection alone."""
    selected = set(layers.selection)  # type: ignore[attr-defined]
    layers.append(layer)
    layers.selection = selected  # type: ignore[attr-defined]


def _place_points(layer: Points, section: LoadedSection, xy: NDArray[np.float64]) -> None:
    """Spots at these level-0 px, in the scale of the slide."""
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
    diameter, pitch = (
        parse_finite(uns.get("spot_diameter_um")),
        parse_finite(uns.get("spot_pitch_um")),
    )
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
    layer.features = {"value": values, "gene": np.repeat(gene, len(values))}
    if not len(values):
        return
    layer.face_color = "value"
    layer.face_colormap = colormap
    layer.face_contrast_limits = limits
    layer.face_colorbar.visible = True


def _mark_points(
    layer: Points, off_tissue: NDArray[np.bool_], selected: NDArray[np.bool_] | None
) -> None:
    if len(off_tissue) != len(layer.data):
        return  # being laid anew
    symbols = np.where(off_tissue, "x", "disc")
    colours = np.where(off_tissue, OFF_TISSUE_COLOR, "white").astype(object)
    widths = np.where(off_tissue, 0.3, 0.04)
    if selected is not None:
        colours[selected], widths[selected] = SELECTED_SPOT_COLOR, 0.3
    layer.symbol = symbols
    layer.border_color = list(colours)
    layer.border_width = widths


def _residual_limit(residual: NDArray[np.float32]) -> float:
    finite = np.abs(residual[np.isfinite(residual)])
    return max(float(np.percentile(finite, _RESIDUAL_PERCENTILE)), 1e-3) if len(finite) else 1.0
