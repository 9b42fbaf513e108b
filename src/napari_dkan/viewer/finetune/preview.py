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
from ...training.tuning.settings import TuneSettings
from ..lane import Failure, Lane
from ..later import Later
from ..links import Links
from ..quality.section import number
from ..session import Session
from ..slides import AXES, UNITS
from ..torch_beside_gl import import_torch
from .handing import Handed, handed
from .sections_box import SectionsBox
from .settings_box import SettingsBox

if TYPE_CHECKING:
    from ...model import Checkpoint

HELD = "#00e5ff"
EXPLAINED = (
    "Outlined spots teach nothing: the verdict is measured on them. A ring of spots around them "
    "is not used at all, since neighbours are alike."
)
QUIET_MS = 150


class Preview(QCheckBox):
    """A toggle; one Points layer a section, which follows the settings."""

    def __init__(
        self, session: Session, sections: SectionsBox, settings: SettingsBox, links: Links
    ) -> None:
        super().__init__("Show the held-out spots on the slide")
        self._session, self._sections, self._settings = session, sections, settings
        self._lane = Lane("held-out spots")
        self._layers: list[Points] = []
        self._later = Later(QUIET_MS, self.refresh)
        self.setToolTip(EXPLAINED)
        self.toggled.connect(self.refresh)
        sections.ticked_changed.connect(self._later.start)
        settings.changed.connect(self._later.start)
        links.join(self._later.start, session.checkpoint_changed)

    @property
    def busy(self) -> bool:
        return self._lane.busy or self._later.active

    def refresh(self, on: bool = True) -> None:
        checkpoint = self._session.checkpoint
        if not self.isChecked() or checkpoint is None:
            self._lane.cancel()
            self._clear()
            return
        try:
            wanted, settings = handed(self._sections.ticked()), self._settings.settings()
        except DkanError as error:
            self._end(Failure(str(error), error))
            return
        self._lane.start(
            lambda: _held_out(wanted, settings, checkpoint),
            lambda rows: self._draw(wanted, rows),
            self._end,
        )

    def shut(self) -> None:
        self._later.stop()
        self._lane.cancel()
        self._lane.wait()
        self._clear()

    def _end(self, failure: Failure | None) -> None:
        self.setToolTip(EXPLAINED if failure is None else failure.sentence)
        if failure is not None:
            self._clear()

    def _clear(self) -> None:
        for layer in self._layers:
            if layer in self._session.viewer.layers:
                self._session.viewer.layers.remove(layer)
        self._layers = []

    def _draw(self, sections: tuple[Handed, ...], held: list[NDArray[np.int64]]) -> None:
        self._clear()
        layers = self._session.viewer.layers
        for h, rows in zip(sections, held, strict=True):
            if not len(rows):
                continue
            mpp = h.slide.mpp
            layer = Points(
                swap_xy(np.asarray(h.data.obsm["spatial"], float)[rows]),
                name=f"held out of fine-tuning - {h.section.name}",
                size=1.3 * (number(h.data.uns.get("spot_diameter_um")) or 100.0) / mpp,
                scale=(mpp, mpp),
                units=UNITS,
                axis_labels=AXES,
                face_color="transparent",
                border_color=HELD,
                border_width=0.18,
                metadata={"napari-dkan": {"held out": h.section.name}},
            )
            selected = set(layers.selection)
            self._session.put_on(h.slide, layer)
            layers.append(layer)
            layers.selection = selected
            self._layers.append(layer)


def _held_out(
    sections: tuple[Handed, ...], settings: TuneSettings, checkpoint: Checkpoint
) -> Iterator[list[NDArray[np.int64]]]:
    """Rows of each section that the run itself will hold out."""
    import_torch()  # the split is drawn where the network learns
    from ...expression.labels import array_coordinates
    from ...training.tuning.split import held_out

    labelled = [np.flatnonzero(_counts(h, checkpoint) > 0) for h in sections]
    arrays = [array_coordinates(h.data)[rows] for h, rows in zip(sections, labelled, strict=True)]
    drawn = held_out(arrays, settings)
    yield [rows[out] for rows, out in zip(labelled, drawn, strict=True)]


def _counts(section: Handed, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Counts of the panel in every spot; without any a spot has no label."""
    genes = [g for g in checkpoint.panel.symbols if g in section.data.var_names]
    return np.asarray(section.data[:, genes].X.sum(axis=1), float).ravel()
