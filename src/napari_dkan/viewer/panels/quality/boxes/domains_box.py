"""Box for spatial domains: Leiden clusters of the predicted and the measured profiles, and their agreement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .....spatial.tile_grid import TileGrid
from ....layers.prediction_layers import GridOverlay
from ....layers.spot_layers import make_spot_labels, make_tile_labels
from ....session.slide_layer import ViewerSlide
from ....session.viewer_session import ViewerSession
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure, JobRunner
from ..data.tile_map_lookup import (
    decode_all_genes,
    expression_profiles,
    find_tile_map,
    get_quality_slide,
    match_cluster_labels,
    tile_labels_at,
)
from ..maps.value_maps import MapGeometry, ValueMapLayers
from ..quality_controller import QualityController

if TYPE_CHECKING:
    from .....quality.comparison import Comparison


PREDICTED_DOMAINS, MEASURED_DOMAINS = "predicted domains", "measured domains"


@dataclass(frozen=True)
class _DomainResult:
    """Labels from 1: predicted ones of tiles or else of the spots, measured ones of the spots.

    agreement : of both at the spots, `compared` of which have a label of both kinds.
    """

    predicted: NDArray[np.integer]
    grid: TileGrid | None
    measured: NDArray[np.integer] | None
    agreement: float
    n_compared: int


class DomainsBox(QWidget):
    """Leiden clustering of what is predicted, and of what is measured where there is any."""

    def __init__(
        self,
        session: ViewerSession,
        quality: QualityController,
        connections: SignalConnections,
        value_maps: ValueMapLayers,
    ) -> None:
        super().__init__()
        self._session, self._quality = session, quality
        self._runner, self._value_maps = JobRunner("domains"), value_maps
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
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(QLabel("Resolution"))
        line.addWidget(self.resolution_spin)
        line.addWidget(self.find_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.status_label)
        self.find_button.clicked.connect(self.find_domains)
        connections.connect(self.refresh, quality.comparison_changed, session.overlays_changed)
        connections.connect(self._cancel, quality.comparison_changed)
        self.refresh()

    def stop_jobs(self) -> None:
        self._runner.cancel()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def refresh(self) -> None:
        self.setEnabled(
            self._quality.comparison is not None or find_tile_map(self._quality) is not None
        )

    def _cancel(self) -> None:
        if self._runner.busy:
            self._runner.cancel()
            self.status_label.setText("")
            self.find_button.setEnabled(True)

    def find_domains(self) -> None:
        """Cluster what there is now."""
        quality, resolution = self._quality, self.resolution_spin.value()
        comparison, tiles, slide = (
            quality.comparison,
            find_tile_map(quality),
            get_quality_slide(quality),
        )
        if slide is None or (comparison is None and tiles is None):
            return
        self.status_label.setText("Clustering ...")
        self.find_button.setEnabled(False)
        self._runner.start(
            lambda: _cluster_profiles(comparison, tiles, resolution),
            lambda found: self._show_result(found, slide, comparison),
            self._on_finished,
        )

    def _on_finished(self, failure: JobFailure | None) -> None:
        self.find_button.setEnabled(True)
        if failure is not None:
            self.status_label.setText(failure.message)

    def _show_result(
        self, found: _DomainResult | None, slide: ViewerSlide, comparison: Comparison | None
    ) -> None:
        """Predicted and measured domains, as two layers of labels; None is half way."""
        if found is None:
            return
        layers: list[Layer] = []
        if found.grid is not None:
            layers.append(
                make_tile_labels(found.grid, found.predicted, slide.mpp, PREDICTED_DOMAINS)
            )
        elif comparison is not None:
            layers.append(
                make_spot_labels(comparison.spots, found.predicted, slide.mpp, PREDICTED_DOMAINS)
            )
        if comparison is not None and found.measured is not None:
            layers.append(
                make_spot_labels(comparison.spots, found.measured, slide.mpp, MEASURED_DOMAINS)
            )
        self._value_maps.set_layers(MapGeometry(slide), layers, _domain_caption(found))
        self.status_label.setText(_describe_domains(found))


def _cluster_profiles(
    comparison: Comparison | None, tiles: GridOverlay | None, resolution: float
) -> Iterator[_DomainResult | None]:
    """Cluster the map as it is now, else the spots; and the measured profiles."""
    from .....quality.spatial_domains import adjusted_rand_index, cluster_domains

    grid, measured, agreed, compared = None, None, float("nan"), 0
    if tiles is not None:
        made = decode_all_genes(tiles)
        grid, values = made.target.grid, expression_profiles(made)
    else:
        assert comparison is not None
        values = comparison.predicted
    predicted = cluster_domains(values, resolution)
    yield None
    if comparison is not None:
        measured, at_spots = cluster_domains(comparison.measured, resolution), predicted
        if grid is not None:
            at_spots = tile_labels_at(grid, predicted, comparison.spots.xy)
        both = at_spots > 0
        compared = int(both.sum())
        if compared > 1:
            agreed = adjusted_rand_index(at_spots[both], measured[both])
        measured = match_cluster_labels(measured, at_spots)
    yield _DomainResult(predicted, grid, measured, agreed, compared)


def _domain_caption(found: _DomainResult) -> str:
    text = "Domains: clusters of spots with similar profiles"
    return text if np.isnan(found.agreement) else f"{text}\nagreement (ARI) {found.agreement:.2f}"


def _describe_domains(found: _DomainResult) -> str:
    kind = "spots" if found.grid is None else "tiles"
    text = f"{int(found.predicted.max())} domains in {len(found.predicted):,} predicted {kind}"
    if found.measured is None:
        return f"{text}."
    text += f", {len(np.unique(found.measured))} in the measured spots. "
    if np.isnan(found.agreement):
        return f"{text}No spot has both: the map does not cover them."
    return (
        f"{text}Agreement (ARI) {found.agreement:.2f} over {found.n_compared:,} spots; "
        "1 is the same, 0 is chance."
    )
