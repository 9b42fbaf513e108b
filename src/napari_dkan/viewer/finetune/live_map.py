"""A gene's map on the spots that are learnt from, drawn anew after every epoch."""

from __future__ import annotations

import numpy as np
from napari.layers import Points
from qtpy.QtWidgets import QCheckBox

from ...spatial.coordinates import swap_xy
from ...training.tuning.events import GeneMap
from ..links import Links
from ..overlay import robust_limits
from ..quality.section import number
from ..session import Session
from ..slides import AXES, UNITS
from .handing import Handed
from .tuning import State, Tuning


class LiveMap(QCheckBox):
    """Asks for the shown gene while it is ticked; one Points layer a section and run."""

    def __init__(self, session: Session, tuning: Tuning, links: Links) -> None:
        super().__init__()
        self._session, self._tuning = session, tuning
        self._layers: dict[str, Points] = {}  # of this run, by the name of the section
        self._limits: tuple[float, float] | None = None
        self._gene = ""
        self.setToolTip("The map as the network sees it now, on all spots of the ticked sections.")
        self.toggled.connect(self.refresh)
        links.join(self.refresh, session.gene_changed)
        links.join(self._draw, tuning.map_came)
        links.join(self._state_changed, tuning.changed)
        self.refresh()

    def refresh(self) -> None:
        gene = self._session.gene or ""
        self.setText(f"Update the map of {gene or 'the gene'} each epoch")
        wanted = gene if self.isChecked() else ""
        if wanted != self._gene:
            self._gene, self._limits = wanted, None
            self._tuning.show_gene(wanted)

    def _state_changed(self) -> None:
        if self._tuning.state is State.STARTING and not self._tuning.curve:
            self._layers, self._limits = {}, None  # the maps of the run before stay as they are

    def _draw(self, told: GeneMap) -> None:
        """Colours keep to the widest limits of this gene so far, so that epochs compare."""
        section = next((h for h in self._tuning.teaching if h.name == told.section), None)
        values = np.array([np.nan if v is None else v for v in told.values], np.float32)
        if section is None or told.gene != self._gene or len(values) != section.data.n_obs:
            return
        there = np.isfinite(values)
        layer = self._layer(section)
        if layer is None or not there.any():
            return
        low, high = robust_limits([values])
        before = self._limits or (low, high)
        self._limits = min(low, before[0]), max(high, before[1])
        if len(layer.data) != there.sum():
            layer.data = swap_xy(np.asarray(section.data.obsm["spatial"], float)[there])
        layer.features = {"value": values[there], "gene": np.repeat(told.gene, int(there.sum()))}
        layer.face_color = "value"
        layer.face_colormap = self._session.settings.colormap
        layer.face_contrast_limits = self._limits
        epoch = self._tuning.curve[-1].number if self._tuning.curve else 0
        layer.name = f"{told.gene} fine-tuning, epoch {epoch} - {section.section.name}"

    def _layer(self, section: Handed) -> Points | None:
        """Made with its first map; None once the person has deleted it."""
        layers = self._session.viewer.layers
        if section.name in self._layers:
            layer = self._layers[section.name]
            return layer if layer in layers else None
        mpp = section.slide.mpp
        size = number(section.data.uns.get("spot_diameter_um")) or 100.0
        layer = Points(
            np.empty((0, 2)),
            ndim=2,
            name="fine-tuning",
            size=size / mpp,
            scale=(mpp, mpp),
            units=UNITS,
            axis_labels=AXES,
            border_width=0,
            features={"value": np.empty(0, np.float32)},
            metadata={"napari-dkan": {"fine-tuning": section.section.name}},
        )
        selected = set(layers.selection)
        self._session.put_on(section.slide, layer)
        layers.append(layer)
        layers.selection = selected
        self._layers[section.name] = layer
        layer.size = size / mpp
        return layer
