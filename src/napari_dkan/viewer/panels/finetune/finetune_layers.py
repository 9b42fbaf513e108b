"""Layers of the fine-tuning panel: the live gene map and the preview of the held-out spots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer, Points
from numpy.typing import NDArray
from qtpy.QtWidgets import QCheckBox

from ....errors import DkanError
from ....spatial.coordinates import swap_xy
from ....training.finetuning.finetune_settings import FinetuneSettings
from ....training.finetuning.tuning_protocol import GeneMapComputed
from ...layers.contrast_limits import WideningLimits
from ...layers.value_layers import (
    DEFAULT_DIAMETER_UM,
    VALUE_COLUMN,
    color_spots,
    make_spots_layer,
)
from ...session.slide_layer import METADATA_PREFIX
from ...session.viewer_session import ViewerSession
from ...widgets.gl_compat import import_torch
from ...widgets.signal_connections import Debouncer, SignalConnections
from ...worker import JobFailure, JobRunner
from ..quality.data.loaded_section import parse_finite
from .export_sections import SectionSnapshot, snapshot_sections
from .finetune_controller import FinetuneController, FinetuneState
from .finetune_sections_box import FinetuneSectionsBox
from .finetune_settings_box import FinetuneSettingsBox

if TYPE_CHECKING:
    from ....model import Checkpoint


class LiveGeneMap(QCheckBox):
    """Check box that shows the current gene after every epoch, in a Points layer per section."""

    def __init__(
        self, session: ViewerSession, controller: FinetuneController, connections: SignalConnections
    ) -> None:
        super().__init__()
        self._session, self._controller = session, controller
        self._layers: dict[str, Points] = {}  # of this run, by the name of the section
        self._limits = WideningLimits()  # of the current gene, so that epochs compare
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
        map_gene = gene if self.isChecked() else ""
        if map_gene != self._gene:
            self._gene, self._limits = map_gene, WideningLimits()
            self._controller.set_map_gene(map_gene)

    def _on_state_changed(self) -> None:
        if self._controller.state is FinetuneState.STARTING and not self._controller.epochs:
            self._layers, self._limits = {}, WideningLimits()  # maps of the previous run stay

    def _draw_map(self, gene_map: GeneMapComputed) -> None:
        section = next(
            (s for s in self._controller.training_sections if s.name == gene_map.section), None
        )
        values = np.array([np.nan if v is None else v for v in gene_map.values], np.float32)
        if section is None or gene_map.gene != self._gene or len(values) != section.data.n_obs:
            return
        known = np.isfinite(values)
        layer = self._get_layer(section)
        if layer is None or not known.any():
            return
        if len(layer.data) != known.sum():
            layer.data = swap_xy(np.asarray(section.data.obsm["spatial"], float)[known])
        colormap = self._session.settings.colormap
        color_spots(layer, values[known], self._limits.update(values), colormap, gene_map.gene)
        epoch = self._controller.epochs[-1].number if self._controller.epochs else 0
        title = f"{gene_map.gene} fine-tuning, epoch {epoch}"
        self._session.titles.set_title(layer, title, section.section.name)

    def _get_layer(self, section: SectionSnapshot) -> Points | None:
        """Layer of a section, added with its first map; None after the user deleted it."""
        layers = self._session.viewer.layers
        if section.name in self._layers:
            layer = self._layers[section.name]
            return layer if layer in layers else None
        layer = make_spots_layer(
            np.empty((0, 2)),
            section.slide.mpp,
            "fine-tuning",
            _spot_diameter_um(section),
            border_width=0,
            features={VALUE_COLUMN: np.empty(0, np.float32)},
            metadata={METADATA_PREFIX: {"fine-tuning": section.section.name}},
        )
        self._session.layers.insert(layer, section.slide)
        self._layers[section.name] = layer
        layer.size = _spot_diameter_um(section) / section.slide.mpp
        return layer


HELD_OUT_COLOR = "#00e5ff"
HELD_OUT_SCALE = 1.3  # diameter of a ring, relative to that of a spot
HELD_OUT_TOOLTIP = (
    "Outlined spots are not trained on: the verdict is measured on them. A ring of spots around "
    "them is not used at all, since neighbours are alike."
)
DEBOUNCE_MS = 150


class HeldOutPreview(QCheckBox):
    """Check box that rings the held-out spots, in a layer per section that follows the settings."""

    def __init__(
        self,
        session: ViewerSession,
        sections: FinetuneSectionsBox,
        settings: FinetuneSettingsBox,
        connections: SignalConnections,
    ) -> None:
        super().__init__("Show the held-out spots on the slide")
        self._session, self._sections, self._settings = session, sections, settings
        self._runner = JobRunner("held-out spots")
        self._layers: list[Layer] = []
        self._debouncer = Debouncer(DEBOUNCE_MS, self.refresh)
        self.setToolTip(HELD_OUT_TOOLTIP)
        self.toggled.connect(self.refresh)
        sections.ticked_changed.connect(self._debouncer.start)
        settings.changed.connect(self._debouncer.start)
        connections.connect(self._debouncer.start, session.checkpoint_changed)

    @property
    def busy(self) -> bool:
        return self._runner.busy or self._debouncer.active

    def refresh(self, on: bool = True) -> None:
        checkpoint = self._session.checkpoint
        if not self.isChecked() or checkpoint is None:
            self._runner.cancel()
            self._remove_layers()
            return
        try:
            sections = snapshot_sections(self._sections.ticked_sections())
            settings = self._settings.tune_settings()
        except DkanError as error:
            self._on_finished(JobFailure(str(error), error))
            return
        self._runner.start(
            lambda: _compute_held_out(sections, settings, checkpoint),
            lambda rows: self._draw_held_out(sections, rows),
            self._on_finished,
        )

    def shut_down(self) -> None:
        self._debouncer.stop()
        self._runner.close()
        self._remove_layers()

    def _on_finished(self, failure: JobFailure | None) -> None:
        self.setToolTip(HELD_OUT_TOOLTIP if failure is None else failure.message)
        if failure is not None:
            self._remove_layers()

    def _remove_layers(self) -> None:
        self._session.layers.remove(*self._layers)
        self._layers = []

    def _draw_held_out(
        self, sections: tuple[SectionSnapshot, ...], held_out_rows: list[NDArray[np.int64]]
    ) -> None:
        self._remove_layers()
        for section, rows in zip(sections, held_out_rows, strict=True):
            if not len(rows):
                continue
            layer = make_spots_layer(
                np.asarray(section.data.obsm["spatial"], float)[rows],
                section.slide.mpp,
                "held out",
                HELD_OUT_SCALE * _spot_diameter_um(section),
                face_color="transparent",
                border_color=HELD_OUT_COLOR,
                border_width=0.18,
                metadata={METADATA_PREFIX: {"held out": section.section.name}},
            )
            self._session.titles.set_title(layer, "held out", section.section.name)
            self._session.layers.insert(layer, section.slide)
            self._layers.append(layer)


def _compute_held_out(
    sections: tuple[SectionSnapshot, ...], settings: FinetuneSettings, checkpoint: Checkpoint
) -> Iterator[list[NDArray[np.int64]]]:
    """Rows of each section that a run with these settings holds out."""
    import_torch()  # the split is in a module that imports torch
    from ....expression.label_scale import array_coords_from_section
    from ....training.finetuning.hold_out_split import draw_held_out_rows

    labelled = [np.flatnonzero(_panel_counts(s, checkpoint) > 0) for s in sections]
    arrays = [
        array_coords_from_section(section.data)[rows]
        for section, rows in zip(sections, labelled, strict=True)
    ]
    held_out = draw_held_out_rows(arrays, settings)
    yield [rows[indices] for rows, indices in zip(labelled, held_out, strict=True)]


def _spot_diameter_um(section: SectionSnapshot) -> float:
    return parse_finite(section.data.uns.get("spot_diameter_um")) or DEFAULT_DIAMETER_UM


def _panel_counts(section: SectionSnapshot, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Counts of the panel's genes in every spot; a spot without any has no label."""
    genes = [g for g in checkpoint.panel.symbols if g in section.data.var_names]
    return np.asarray(section.data[:, genes].X.sum(axis=1), float).ravel()
