"""A gene's map on the spots that are learnt from, drawn anew after every epoch."""

from __future__ import annotations

import numpy as np
from napari.layers import Points
from qtpy.QtWidgets import QCheckBox

from ...spatial.coordinates import swap_xy
from ...training.tuning.events import GeneMapComputed
from ..links import SignalConnections
from ..overlay import percentile_limits
from ..quality.section import parse_finite
from ..session import ViewerSession
from ..slides import AXIS_LABELS, MICROMETER_UNITS
from .handing import SectionSnapshot
from .tuning import FinetuneState, FinetuneController


class LiveGeneMap(QCheckBox):
    """Asks for the shown gene while it is ticked; one Points layer a section and run."""

    def __init__(self, session: ViewerSession, controller: FinetuneController, connections: SignalConnections) -> None:
        super().__init__()
        self._session, self._controller = session, controller
        self._layers: dict[str, Points] = {}  # of this run, by the name of the section
        self._limits: tuple[float, float] | None = None
        self._gene = ""
        self.setToolTip("The map as the network sees it now, on all spots of the ticked sections.")
        self.toggled.connect(self.refresh)
        connections.connect(self.refresh, session.gene_changed)
        connections.connect(self._draw_map, controller.gene_map_received)
        connections.connect(self._on_state_changed, controller.changed)
        self.refresh()

    def refresh(self) -> None:
        gene = self._session.gene or ""
        self.setText(f"Update the map of {gene or 'the gene'} each epoch")
        wanted = gene if self.isChecked() else ""
        if wanted != self._gene:
            self._gene, self._limits = wanted, None
            self._controller.set_map_gene(wanted)

    def _on_state_changed(self) -> None:
        if self._controller.state is FinetuneState.STARTING and not self._controller.epochs:
            self._layers, self._limits = {}, None  # the maps of the run before stay as they are

    def _draw_map(self, gene_map: GeneMapComputed) -> None:
        """Colours keep to the widest limits of this gene so far, so that epochs compare."""
        section = next((h for h in self._controller.training_sections if h.name == gene_map.section), None)
        values = np.array([np.nan if v is None else v for v in gene_map.values], np.float32)
        if section is None or gene_map.gene != self._gene or len(values) != section.data.n_obs:
            return
        there = np.isfinite(values)
        layer = self._get_layer(section)
        if layer is None or not there.any():
            return
        low, high = percentile_limits([values])
        before = self._limits or (low, high)
        self._limits = min(low, before[0]), max(high, before[1])
        if len(layer.data) != there.sum():
            layer.data = swap_xy(np.asarray(section.data.obsm["spatial"], float)[there])
        layer.features = {"value": values[there], "gene": np.repeat(gene_map.gene, int(there.sum()))}
        layer.face_color = "value"
        layer.face_colormap = self._session.settings.colormap
        layer.face_contrast_limits = self._limits
        epoch = self._controller.epochs[-1].number if self._controller.epochs else 0
        layer.name = f"{gene_map.gene} fine-tuning, epoch {epoch} - {section.section.name}"

    def _get_layer(self, section: SectionSnapshot) -> Points | None:
        """Made with its first map; None once the person has deleted it."""
        layers = self._session.viewer.layers
        if section.name in self._layers:
            layer = self._layers[section.name]
            return layer if layer in layers else None
        mpp = section.slide.mpp
        size = parse_finite(section.data.uns.get("spot_diameter_um")) or 100.0
        layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name="fine-tuning",
            size=size / mpp,
            scale=(mpp, mpp),
            units=MICROMETER_UNITS,
            axis_labels=AXIS_LABELS,
            border_width=0,
            features={"value": np.empty(0, np.float32)},
            metadata={"napari-dkan": {"fine-tuning": section.section.name}},
        )
        selected = set(layers.selection)
        self._session.attach_layer(section.slide, layer)
        layers.append(layer)
        layers.selection = selected
        self._layers[section.name] = layer
        layer.size = size / mpp
        return layer
