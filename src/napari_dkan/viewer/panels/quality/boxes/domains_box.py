"""Box for spatial domains: Leiden clusters of predicted and measured profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtWidgets import QDoubleSpinBox, QLabel, QPushButton, QWidget

from .....spatial.tile_grid import TileGrid
from ....layers.overlay_lookup import decode_all_genes
from ....layers.prediction_layers import GridOverlay
from ....layers.spot_layers import make_spot_labels, make_tile_labels
from ....session.slide_layer import ViewerSlide
from ....widgets.job_row import JobRow
from ....widgets.qt_utils import fill_column
from ....widgets.signal_connections import SignalConnections
from ..data.quality_model import QualityModel
from ..maps.value_maps import MapGeometry, ValueMapLayers

if TYPE_CHECKING:
    from .....inference.prediction import Prediction
    from .....quality.comparison import Comparison


PREDICTED_DOMAINS, MEASURED_DOMAINS = "predicted domains", "measured domains"


@dataclass(frozen=True)
class _DomainResult:
    """Domain labels, from 1.

    Attributes
    ----------
    predicted : ndarray
        Of the tiles of `grid`, or else of the spots.
    grid : TileGrid or None
    measured : ndarray or None
        Of the spots.
    agreement : float
        Adjusted Rand index at the spots.
    n_compared : int
        Spots with a label of both kinds.
    """

    predicted: NDArray[np.integer]
    grid: TileGrid | None
    measured: NDArray[np.integer] | None
    agreement: float
    n_compared: int


class DomainsBox(QWidget):
    """Leiden clustering of the predicted profiles, and of the measured ones if there are any."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._model, self._value_maps = model, value_maps
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
        fill_column(self, self.job_row)
        self.find_button.clicked.connect(self.find_domains)
        connections.connect(self.refresh, model.comparison_changed, model.session.overlays_changed)
        connections.connect(self._cancel, model.comparison_changed)
        self.refresh()

    def refresh(self) -> None:
        model = self._model
        self.setEnabled(model.comparison is not None or model.tile_map is not None)

    def _cancel(self) -> None:
        if self.job_row.busy:
            self.job_row.cancel()

    def find_domains(self) -> None:
        """Cluster the current profiles."""
        model, resolution = self._model, self.resolution_spin.value()
        comparison, tile_map, slide = model.comparison, model.tile_map, model.slide
        if slide is None or (comparison is None and tile_map is None):
            return
        self.job_row.start(
            lambda: _cluster_profiles(comparison, tile_map, resolution),
            lambda result: self._show_result(result, slide, comparison),
            "Clustering ...",
        )

    def _show_result(
        self, result: _DomainResult | None, slide: ViewerSlide, comparison: Comparison | None
    ) -> None:
        """Show predicted and measured domains in two layers; None: the job is not done yet."""
        if result is None:
            return
        layers: list[Layer] = []
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
        self._value_maps.set_layers(MapGeometry(slide), layers, _domain_caption(result))
        self.job_row.status_label.setText(_describe_domains(result))


def _cluster_profiles(
    comparison: Comparison | None, tile_map: GridOverlay | None, resolution: float
) -> Iterator[_DomainResult | None]:
    """Cluster the tiles of the map, else the spots; and the measured profiles."""
    from .....quality.spatial_domains import adjusted_rand_index, cluster_domains

    grid, measured, agreement, n_compared = None, None, float("nan"), 0
    if tile_map is not None:
        prediction = decode_all_genes(tile_map)
        grid, values = prediction.target.grid, expression_profiles(prediction)
    else:
        assert comparison is not None
        values = comparison.predicted
    predicted = cluster_domains(values, resolution)
    yield None
    if comparison is not None:
        measured, at_spots = cluster_domains(comparison.measured, resolution), predicted
        if grid is not None:
            at_spots = tile_labels_at(grid, predicted, comparison.spots.xy)
        is_labeled = at_spots > 0
        n_compared = int(is_labeled.sum())
        if n_compared > 1:
            agreement = adjusted_rand_index(at_spots[is_labeled], measured[is_labeled])
        measured = match_cluster_labels(measured, at_spots)
    yield _DomainResult(predicted, grid, measured, agreement, n_compared)


def expression_profiles(prediction: Prediction) -> NDArray[np.float32]:
    """Return values (N, G) without genes predicted from their text, whose scale differs."""
    columns = [
        i for i, s in enumerate(prediction.panel.symbols) if s not in prediction.zero_shot_symbols
    ]
    return prediction.values[:, columns]


def match_cluster_labels(
    labels: NDArray[np.integer], reference: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Renumber clusters (N,) so that they have the colours of those they share most spots with.

    Clusters without a counterpart get new numbers. The assignment maximizes the number of shared
    spots (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((int(labels.max()) + 1, int(reference.max()) + 1))
    np.add.at(shared, (labels, reference), 1)
    shared[0] = shared[:, 0] = 0
    renumbered: NDArray[np.int64] = np.zeros(len(shared), np.int64)
    for label, match in zip(*linear_sum_assignment(-shared), strict=True):
        if shared[label, match]:
            renumbered[label] = match
    next_number = int(reference.max())
    for label in range(1, len(renumbered)):
        if not renumbered[label]:
            next_number += 1
            renumbered[label] = next_number
    matched: NDArray[np.int64] = renumbered[labels]
    return matched


def tile_labels_at(
    grid: TileGrid, labels: NDArray[np.integer], xy: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the labels (N,) of the tiles (T,) at positions (N, 2) in level-0 px; 0 for none."""
    label_of_cell = dict(zip(map(tuple, grid.cells.tolist()), labels.tolist(), strict=True))
    cells = np.floor(xy / grid.pitch).astype(int).tolist()
    return np.array([label_of_cell.get(tuple(cell), 0) for cell in cells], np.int64)


def _domain_caption(result: _DomainResult) -> str:
    text = "Domains: clusters of spots with similar profiles"
    return text if np.isnan(result.agreement) else f"{text}\nagreement (ARI) {result.agreement:.2f}"


def _describe_domains(result: _DomainResult) -> str:
    kind = "spots" if result.grid is None else "tiles"
    text = f"{int(result.predicted.max())} domains in {len(result.predicted):,} predicted {kind}"
    if result.measured is None:
        return f"{text}."
    text += f", {len(np.unique(result.measured))} in the measured spots. "
    if np.isnan(result.agreement):
        return f"{text}No spot has both: the map does not cover them."
    return (
        f"{text}Agreement (ARI) {result.agreement:.2f} over {result.n_compared:,} spots; "
        "1 is the same, 0 is chance."
    )
