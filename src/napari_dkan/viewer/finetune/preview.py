"""Which spots will be held out, outlined on the slide before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points
from numpy.typing import NDArray
from qtpy.QtWidgets import QCheckBox

from ...errors import DkanError
from ...spatial.coordinates import swap_xy
from ...training.tuning.settings import FinetuneSettings
from ..lane import JobFailure, JobRunner
from ..later import Debouncer
from ..links import SignalConnections
from ..quality.section import parse_finite
from ..session import ViewerSession
from ..slides import AXIS_LABELS, MICROMETER_UNITS
from ..torch_beside_gl import import_torch
from .handing import SectionSnapshot, snapshot_sections
from .sections_box import FinetuneSectionsBox
from .settings_box import FinetuneSettingsBox

if TYPE_CHECKING:
    from ...model import Checkpoint

HELD_OUT_COLOR = "#00e5ff"
HELD_OUT_TOOLTIP = (
    "Outlined spots teach nothing: the verdict is measured on them. A ring of spots around them "
    "is not used at all, since neighbours are alike."
)
DEBOUNCE_MS = 150


class HeldOutPreview(QCheckBox):
    """A toggle; one Points layer a section, which follows the settings."""

    def __init__(
        self, session: ViewerSession, sections: FinetuneSectionsBox, settings: FinetuneSettingsBox, connections: SignalConnections
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
            wanted, settings = snapshot_sections(self._sections.ticked_sections()), self._settings.tune_settings()
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

    def _draw_held_out(self, sections: tuple[SectionSnapshot, ...], held: list[NDArray[np.int64]]) -> None:
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
            self._session.attach_layer(h.slide, layer)
            layers.append(layer)
            layers.selection = selected
            self._layers.append(layer)


def _compute_held_out(
    sections: tuple[SectionSnapshot, ...], settings: FinetuneSettings, checkpoint: Checkpoint
) -> Iterator[list[NDArray[np.int64]]]:
    """Rows of each section that the run itself will hold out."""
    import_torch()  # the split is drawn where the network learns
    from ...expression.labels import array_coords_from_section
    from ...training.tuning.split import draw_held_out_rows

    labelled = [np.flatnonzero(_panel_counts(h, checkpoint) > 0) for h in sections]
    arrays = [array_coords_from_section(h.data)[rows] for h, rows in zip(sections, labelled, strict=True)]
    drawn = draw_held_out_rows(arrays, settings)
    yield [rows[out] for rows, out in zip(labelled, drawn, strict=True)]


def _panel_counts(section: SectionSnapshot, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Counts of the panel in every spot; without any a spot has no label."""
    genes = [g for g in checkpoint.panel.symbols if g in section.data.var_names]
    return np.asarray(section.data[:, genes].X.sum(axis=1), float).ravel()
