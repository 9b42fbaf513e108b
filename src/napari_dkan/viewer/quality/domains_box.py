"""Domains: clusters of the predicted profiles as labels, and how they agree with measured ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ...spatial.grid import TileGrid
from ..lane import Failure, Lane
from ..links import Links
from ..overlay import GridOverlay
from ..session import OpenSlide, Session
from .domain_layers import grid_labels, spot_labels
from .state import Quality
from .tile_maps import decoded, labels_at, named_alike, profiles, slide_of, tile_map
from .value_maps import Places, ValueMaps

if TYPE_CHECKING:
    from ...quality.compare import Comparison


PREDICTED, MEASURED = "predicted domains", "measured domains"


@dataclass(frozen=True)
class _Found:
    """Labels from 1: predicted ones of tiles or else of the spots, measured ones of the spots.

    agreement : of both at the spots, `compared` of which have a label of both kinds.
    """

    predicted: NDArray[np.integer]
    grid: TileGrid | None
    measured: NDArray[np.integer] | None
    agreement: float
    compared: int


class DomainsBox(QWidget):
    """Leiden clustering of what is predicted, and of what is measured where there is any."""

    def __init__(self, session: Session, quality: Quality, links: Links, maps: ValueMaps) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._lane, self._maps = Lane("domains"), maps
        self.resolution = QDoubleSpinBox()
        self.resolution.setRange(0.1, 5.0)
        self.resolution.setSingleStep(0.1)
        self.resolution.setValue(0.7)
        self.resolution.setToolTip("Higher finds more and smaller domains")
        self.cluster = QPushButton("Find domains")
        self.cluster.setToolTip(
            "Leiden clustering of the predicted profiles: of the tile map on this slide if "
            "there is one, else of the spots; and of the measured profiles in the same way"
        )
        self.said = QLabel()
        self.said.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(QLabel("Resolution"))
        line.addWidget(self.resolution)
        line.addWidget(self.cluster, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.said)
        self.cluster.clicked.connect(self.start)
        links.join(self.refresh, quality.comparison_changed, session.overlays_changed)
        links.join(self._stop, quality.comparison_changed)
        self.refresh()

    def close_lane(self) -> None:
        self._lane.cancel()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def refresh(self) -> None:
        self.setEnabled(self._quality.comparison is not None or tile_map(self._quality) is not None)

    def _stop(self) -> None:
        if self._lane.busy:
            self._lane.cancel()
            self.said.setText("")
            self.cluster.setEnabled(True)

    def start(self) -> None:
        """Cluster what there is now."""
        quality, resolution = self._quality, self.resolution.value()
        comparison, tiles, slide = quality.comparison, tile_map(quality), slide_of(quality)
        if slide is None or (comparison is None and tiles is None):
            return
        self.said.setText("Clustering ...")
        self.cluster.setEnabled(False)
        self._lane.start(
            lambda: _finding(comparison, tiles, resolution),
            lambda found: self._show(found, slide, comparison),
            self._end,
        )

    def _end(self, failure: Failure | None) -> None:
        self.cluster.setEnabled(True)
        if failure is not None:
            self.said.setText(failure.sentence)

    def _show(self, found: _Found | None, slide: OpenSlide, comparison: Comparison | None) -> None:
        """Predicted and measured domains, as two layers of labels; None is half way."""
        if found is None:
            return
        layers: list[Layer] = []
        if found.grid is not None:
            layers.append(grid_labels(found.grid, found.predicted, slide.mpp, PREDICTED))
        elif comparison is not None:
            layers.append(spot_labels(comparison.spots, found.predicted, slide.mpp, PREDICTED))
        if comparison is not None and found.measured is not None:
            layers.append(spot_labels(comparison.spots, found.measured, slide.mpp, MEASURED))
        self._maps.put(Places(slide), layers, _caption(found))
        self.said.setText(_sentence(found))


def _finding(
    comparison: Comparison | None, tiles: GridOverlay | None, resolution: float
) -> Iterator[_Found | None]:
    """Cluster the map as it is now, else the spots; and the measured profiles."""
    from ...quality.domains import agreement, domains

    grid, measured, agreed, compared = None, None, float("nan"), 0
    if tiles is not None:
        made = decoded(tiles)
        grid, values = made.target.grid, profiles(made)
    else:
        assert comparison is not None
        values = comparison.predicted
    predicted = domains(values, resolution)
    yield None
    if comparison is not None:
        measured, at_spots = domains(comparison.measured, resolution), predicted
        if grid is not None:
            at_spots = labels_at(grid, predicted, comparison.spots.xy)
        both = at_spots > 0
        compared = int(both.sum())
        if compared > 1:
            agreed = agreement(at_spots[both], measured[both])
        measured = named_alike(measured, at_spots)
    yield _Found(predicted, grid, measured, agreed, compared)


def _caption(found: _Found) -> str:
    text = "Domains: clusters of spots with similar profiles"
    return text if np.isnan(found.agreement) else f"{text}\nagreement (ARI) {found.agreement:.2f}"


def _sentence(found: _Found) -> str:
    kind = "spots" if found.grid is None else "tiles"
    text = f"{int(found.predicted.max())} domains in {len(found.predicted):,} predicted {kind}"
    if found.measured is None:
        return f"{text}."
    text += f", {len(np.unique(found.measured))} in the measured spots. "
    if np.isnan(found.agreement):
        return f"{text}No spot has both: the map does not cover them."
    return (
        f"{text}Agreement (ARI) {found.agreement:.2f} over {found.compared:,} spots; "
        "1 is the same, 0 is chance."
    )
