"""Layers of the fine-tuning panel: the live gene map and the preview of the held-out spots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points
from numpy.typing import NDArray
from qtpy.QtWidgets import QCheckBox

from ....errors import DkanError
from ....spatial.coordinates import swap_xy
from ....training.finetuning.finetune_settings import FinetuneSettings
from ....training.finetuning.tuning_protocol import GeneMapComputed
from ...layers.contrast_limits import percentile_limits
from ...session.slide_layer import AXIS_LABELS, MICROMETER_UNITS
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
    """Asks for the shown gene while it is ticked; one Points layer a section and run."""

    def __init__(
        self, session: ViewerSession, controller: FinetuneController, connections: SignalConnections
    ) -> None:
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
        section = next(
            (h for h in self._controller.training_sections if h.name == gene_map.section), None
        )
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
        layer.features = {
            "value": values[there],
            "gene": np.repeat(gene_map.gene, int(there.sum())),
        }
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
        self._session.layers.attach(section.slide, layer)
        layers.append(layer)
        layers.selection = selected
        self._layers[section.name] = layer
        layer.size = size / mpp
        return layer


HELD_OUT_COLOR = "#00e5ff"
HELD_OUT_TOOLTIP = (
    "Outlined spots teach nothing: the verdict is measured on them. A ring of spots around them "
    "is not used at all, since neighbours are alike."
)
DEBOUNCE_MS = 150


class HeldOutPreview(QCheckBox):
    """A toggle; one Points layer a section, which follows the settings."""

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
        self._layers: list[Points] = []
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
            wanted, settings = (
                snapshot_sections(self._sections.ticked_sections()),
                self._settings.tune_settings(),
            )
        except DkanError as error:
            self._on_finished(JobFailure(str(error), error))
            return
        self._runner.start(
            lambda: _compute_held_out(wanted, settings, checkpoint),
            lambda rows: self._draw_held_out(wanted, rows),
            self._on_finished,
        )

    def shut_down(self) -> None:
        self._debouncer.stop()
        self._runner.cancel()
        self._runner.wait()
        self._remove_layers()

    def _on_finished(self, failure: JobFailure | None) -> None:
        self.setToolTip(HELD_OUT_TOOLTIP if failure is None else failure.message)
        if failure is not None:
            self._remove_layers()

    def _remove_layers(self) -> None:
        for layer in self._layers:
            if layer in self._session.viewer.layers:
                self._session.viewer.layers.remove(layer)
        self._layers = []

    def _draw_held_out(
        self, sections: tuple[SectionSnapshot, ...], held: list[NDArray[np.int64]]
    ) -> None:
        self._remove_layers()
        layers = self._session.viewer.layers
        for h, rows in zip(sections, held, strict=True):
            if not len(rows):
                continue
            mpp = h.slide.mpp
            layer = Points(
                swap_xy(np.asarray(h.data.obsm["spatial"], float)[rows]),
                name=f"held out of fine-tuning - {h.section.name}",
                size=1.3 * (parse_finite(h.data.uns.get("spot_diameter_um")) or 100.0) / mpp,
                scale=(mpp, mpp),
                units=MICROMETER_UNITS,
                axis_labels=AXIS_LABELS,
                face_color="transparent",
                border_color=HELD_OUT_COLOR,
                border_width=0.18,
                metadata={"napari-dkan": {"held out": h.section.name}},
            )
            selected = set(layers.selection)
            self._session.layers.attach(h.slide, layer)
            layers.append(layer)
            layers.selection = selected
            self._layers.append(layer)


def _compute_held_out(
    sections: tuple[SectionSnapshot, ...], settings: FinetuneSettings, checkpoint: Checkpoint
) -> Iterator[list[NDArray[np.int64]]]:
    """Rows of each section that the run itself will hold out."""
    import_torch()  # the split is drawn where the network learns
    from ....expression.label_scale import array_coords_from_section
    from ....training.finetuning.hold_out_split import draw_held_out_rows

    labelled = [np.flatnonzero(_panel_counts(h, checkpoint) > 0) for h in sections]
    arrays = [
        array_coords_from_section(h.data)[rows] for h, rows in zip(sections, labelled, strict=True)
    ]
    drawn = draw_held_out_rows(arrays, settings)
    yield [rows[out] for rows, out in zip(labelled, drawn, strict=True)]


def _panel_counts(section: SectionSnapshot, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Counts of the panel in every spot; without any a spot has no label."""
    genes = [g for g in checkpoint.panel.symbols if g in section.data.var_names]
    return np.asarray(section.data[:, genes].X.sum(axis=1), float).ravel()
