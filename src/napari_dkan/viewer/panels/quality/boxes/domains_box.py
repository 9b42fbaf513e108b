"""Box for spatial domains: Leiden clusters of predicted and measured profiles."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QLabel, QMenu, QPushButton, QWidget

from .....errors import DkanError
from ....layers.domain_legend import DomainLegend
from ....layers.region_layers import make_region_layers
from ....layers.region_objects import DOMAINS_KEY
from ....layers.spot_layers import color_domains, make_spot_labels, make_tile_labels
from ....session.shortcut_actions import REGIONS_PANEL, open_panel_dock
from ....session.slide_layer import ViewerSlide
from ....widgets.job_row import JobRow
from ....widgets.qt_utils import fill_column, make_row
from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import QualityModel
from ..maps.value_maps import MapGeometry, ValueMapLayers
from .domain_table import DomainTable
from .domains_job import DomainResult, cluster_profiles, domain_regions

if TYPE_CHECKING:
    from .....quality.comparison import Comparison
    from ..data.loaded_section import LoadedSection


PREDICTED_DOMAINS, MEASURED_DOMAINS = "predicted domains", "measured domains"
EXPORTS = (  # title, ending of the file's name
    ("Genes of the domains (.csv) ...", "genes"),
    ("Domain of each tile or spot (.csv) ...", "tiles"),
)


class DomainsBox(QWidget):
    """Leiden clustering of the predicted profiles, and of the measured ones if there are any."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._model, self._value_maps = model, value_maps
        self._legend = DomainLegend(model.session)
        self._layers: list[Labels] = []
        self.result: DomainResult | None = None
        self._slide: ViewerSlide | None = None
        self._section: LoadedSection | None = None
        self.resolution_spin = QDoubleSpinBox()
        self.resolution_spin.setRange(0.1, 5.0)
        self.resolution_spin.setSingleStep(0.1)
        self.resolution_spin.setValue(0.7)
        self.resolution_spin.setToolTip("Higher finds more and smaller domains")
        self.find_button = QPushButton("Find domains")
        self.find_button.setToolTip(
            "Leiden clustering of the predicted profiles: of the tile map on this slide if "
            "there is one, else of the spots; and of the measured profiles in the same way"
        )
        self.job_row = JobRow(
            "domains",
            self.find_button,
            QLabel("Resolution"),
            self.resolution_spin,
            (self.find_button, 1),
        )
        self.table = DomainTable()
        self.regions_button, self.save_button = QPushButton("As regions"), QPushButton("Save")
        self.regions_button.setToolTip(
            "Make a class of regions of each domain, for the panel DKAN: regions"
        )
        menu = QMenu(self.save_button)
        for title, kind in EXPORTS:
            menu.addAction(title, partial(self._ask_path, kind))
        self.save_button.setMenu(menu)
        self._result_widgets = QWidget()
        fill_column(
            self._result_widgets,
            self.table,
            make_row((self.regions_button, 1), (self.save_button, 1)),
        )
        fill_column(self, self.job_row, self._result_widgets)
        self._result_widgets.hide()
        self.find_button.clicked.connect(self.find_domains)
        self.table.style_changed.connect(self._apply_style)
        self.table.gene_selected.connect(self._show_gene)
        self.table.domain_selected.connect(lambda: self._set_maps_visible(True))
        self.regions_button.clicked.connect(self.make_regions)
        connections.connect(self.refresh, model.comparison_changed, model.session.overlays_changed)
        connections.connect(self._cancel, model.comparison_changed)
        connections.connect(
            self._follow_slide,
            model.section_changed,
            model.session.slide_changed,
            model.session.slides_changed,
        )
        connections.connect(self._on_maps_changed, value_maps.changed)
        connections.on_disconnect(self._legend.hide)
        self.refresh()

    def refresh(self) -> None:
        model = self._model
        self.setEnabled(model.comparison is not None or model.tile_map is not None)

    def _cancel(self) -> None:
        if self.job_row.busy:
            self.job_row.cancel()

    # ---- finding -----------------------------------------------------------------------

    def find_domains(self) -> None:
        """Cluster the current profiles."""
        model, resolution = self._model, self.resolution_spin.value()
        comparison, tile_map, slide = model.comparison, model.tile_map, model.slide
        section = model.section
        if slide is None or (comparison is None and tile_map is None):
            return
        self.job_row.start(
            lambda: cluster_profiles(comparison, tile_map, resolution),
            lambda result: self._show_result(result, slide, section, comparison),
            "Clustering ...",
        )

    def _show_result(
        self,
        result: DomainResult | None,
        slide: ViewerSlide,
        section: LoadedSection | None,
        comparison: Comparison | None,
    ) -> None:
        """Show predicted and measured domains in two layers; None: the job is not done yet."""
        if result is None:
            return
        layers: list[Labels] = []
        if result.grid is not None:
            layers.append(
                make_tile_labels(result.grid, result.predicted, slide.mpp, PREDICTED_DOMAINS)
            )
        elif comparison is not None:
            layers.append(
                make_spot_labels(comparison.spots, result.predicted, slide.mpp, PREDICTED_DOMAINS)
            )
        if comparison is not None and result.measured is not None:
            layers.append(
                make_spot_labels(comparison.spots, result.measured, slide.mpp, MEASURED_DOMAINS)
            )
        before = self.result
        is_same = before is not None and slide is self._slide and before.has_domains_of(result)
        self.result, self._slide, self._section = result, slide, section
        self.table.set_result(result, is_same)
        for layer in layers:
            color_domains(layer, self.table.names, self.table.colors)
        self._value_maps.set_layers(MapGeometry(slide), list(layers), _domain_caption(result))
        self._layers = layers
        self._apply_style()
        self._follow_slide()

    def _follow_slide(self) -> None:
        """List the domains of the chosen slide and section; those of others are kept unseen."""
        result, slide, section = self.result, self._slide, self._section
        if result is None or slide is None:
            return
        model = self._model
        if slide not in model.session.slides:
            self.result = self._slide = self._section = None
            self._layers = []
            self._result_widgets.hide()
            self.job_row.status_label.setText("")
            return
        is_chosen = slide is model.slide and (section is None or section is model.section)
        self._result_widgets.setVisible(is_chosen)
        if is_chosen:
            self.job_row.status_label.setText(_describe_domains(result))
        else:
            self._set_maps_visible(False)
            name = slide.layer.name if section is None else section.name
            self.job_row.status_label.setText(
                f"The domains of {name} are kept, and listed when it is chosen again."
            )

    # ---- style -------------------------------------------------------------------------

    @property
    def is_shown(self) -> bool:
        """Whether the maps of the domains are in the viewer, and not those of another box."""
        return bool(self._layers) and self._value_maps.layers == self._layers

    def _apply_style(self) -> None:
        """Give layers and legend the names and colours of the table."""
        for layer in self._layers:
            color_domains(layer, self.table.names, self.table.colors)
        self._on_maps_changed()

    def _on_maps_changed(self) -> None:
        if self.is_shown and any(layer.visible for layer in self._layers):
            is_stacked = not self._value_maps.is_side_by_side
            self._legend.show(self.table.names, self.table.colors, is_stacked)
        else:
            self._legend.hide()

    def _show_gene(self, symbol: str) -> None:
        """Show the map of a gene instead of the domains."""
        session = self._model.session
        with session.message.report_errors():
            session.set_gene(symbol)
            self._set_maps_visible(False)

    def _set_maps_visible(self, visible: bool) -> None:
        if not self.is_shown:
            return
        if not visible:
            self._value_maps.hide()
        elif not all(layer.visible for layer in self._layers):
            self._value_maps.set_side_by_side(True)  # on the slide one lies on the other

    # ---- regions and files -------------------------------------------------------------

    def make_regions(self) -> None:
        """Add a layer of regions, a class for each predicted domain."""
        session, result, slide = self._model.session, self.result, self._slide
        if result is None or slide is None or slide not in session.slides:
            return
        with session.message.report_errors():
            regions = domain_regions(result, self.table.names, self.table.colors)
            for layer in make_region_layers(regions, f"domains, {slide.layer.name}", slide.mpp):
                layer.metadata[DOMAINS_KEY] = True
                session.layers.insert(layer, slide)
            self._set_maps_visible(False)
            open_panel_dock(session.viewer, REGIONS_PANEL)

    def _ask_path(self, kind: str) -> None:
        slide = self._slide
        name = f"{'slide' if slide is None else slide.slide.name}-domains-{kind}.csv"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the domains", name, "Table (*.csv)")
        if chosen:
            self.save(Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv"), kind)

    def save(self, path: Path, kind: str) -> None:
        """Write the genes of the domains ("genes"), or the domain of each tile ("tiles")."""
        from .....quality.domain_genes import write_domain_genes, write_domain_tiles

        result, names = self.result, self.table.names
        if result is None:
            return
        n_predicted = len(result.genes.n_tiles)
        try:
            if kind == "genes":
                write_domain_genes(path, result.genes, names[:n_predicted], result.provenance)
            else:
                write_domain_tiles(path, result.xy, result.predicted, names, result.provenance)
        except DkanError as error:
            self.job_row.status_label.setText(str(error))
            return
        self.job_row.status_label.setText(f"{path.name} is written.")


def _domain_caption(result: DomainResult) -> str:
    text = f"Domains: clusters of {result.unit} with similar profiles"
    return text if np.isnan(result.agreement) else f"{text}\nagreement (ARI) {result.agreement:.2f}"


def _describe_domains(result: DomainResult) -> str:
    text = (
        f"{int(result.predicted.max())} domains in {len(result.predicted):,} predicted "
        f"{result.unit}"
    )
    one_slide = "Their genes are of this slide, so of one patient."
    if result.measured is None:
        return f"{text}. {one_slide}"
    text += f", {len(np.unique(result.measured))} in the measured spots. "
    if np.isnan(result.agreement):
        return f"{text}No spot has both: the map does not cover them. {one_slide}"
    return (
        f"{text}Agreement (ARI) {result.agreement:.2f} over {result.n_compared:,} spots; "
        f"1 is the same, 0 is chance. {one_slide}"
    )
