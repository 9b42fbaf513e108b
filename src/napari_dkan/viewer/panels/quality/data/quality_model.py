"""State of the quality-control panel: data, display settings and their signals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from psygnal import Signal

from ....layers.overlay_lookup import find_tile_map
from ....session.viewer_session import ViewerSession
from .comparison_worker import EarlyComparison, MeasuredPredictedPair, measured_labels_at
from .loaded_section import LoadedSection, SectionCandidate

if TYPE_CHECKING:
    from .....inference.prediction import Prediction
    from .....quality.comparison import Comparison
    from ....layers.prediction_layers import GridOverlay
    from ....session.slide_layer import ViewerSlide
    from ....tools.landmarks import LandmarkRegistration


class MapLayout(StrEnum):
    """Arrangement of the maps of a section, as the panel words it."""

    STACKED = "On the slide"
    SIDE_BY_SIDE = "Side by side"


class MapKind(StrEnum):
    """The visible one of the stacked maps."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    RESIDUAL = "residual"


@dataclass(frozen=True)
class SpotValues:
    """Both values of one gene at one spot."""

    gene: str
    name: str
    measured: float
    predicted: float


class QualityModel:
    """Measured sections of one session, the current comparison and how its maps are displayed.

    `QualityController` loads, registers and compares; boxes and layers read the attributes and
    connect to the signals. All signals are emitted in the GUI thread.

    Attributes
    ----------
    sections : list of LoadedSection
    section : LoadedSection or None
        The chosen section.
    candidates : tuple of SectionCandidate
        All sections of the folder that was loaded last, when it holds several.
    comparison : Comparison or None
        Of all spots.
    early : EarlyComparison or None
        Of the spots that were predicted first; out of date once `comparison` is there.
    pair : MeasuredPredictedPair or None
        Labels, and the prediction as far as it is computed.
    spot_row : int or None
        Chosen spot, as a row of `comparison`.
    landmarks : LandmarkRegistration or None
        Set while landmarks are being clicked.
    stage : str
        What is being done, for the user.
    progress : tuple of int
        Done and total; (0, 0) where the total is unknown.
    """

    sections_changed = Signal()  # `sections` or `candidates`
    section_changed = Signal()  # another section is chosen, or its registration changed
    comparison_changed = Signal()
    early_changed = Signal()  # another early comparison, while there is no `comparison` yet
    prediction_updated = Signal()  # the prediction at the spots has new values
    spot_changed = Signal()
    layout_changed = Signal()  # `layout`, `visible_map`, `swipe`
    progress_changed = Signal()  # `stage`, `progress`
    landmarks_changed = Signal()  # started, another click, ended

    def __init__(self, session: ViewerSession) -> None:
        self.session = session
        self.sections: list[LoadedSection] = []
        self.section: LoadedSection | None = None
        self.candidates: tuple[SectionCandidate, ...] = ()
        self.comparison: Comparison | None = None
        self.early: EarlyComparison | None = None
        self.pair: MeasuredPredictedPair | None = None
        self.spot_row: int | None = None
        self.landmarks: LandmarkRegistration | None = None
        self.layout = MapLayout.STACKED
        self.visible_map = MapKind.MEASURED
        self.swipe = False
        self.stage = ""
        self.progress = (0, 0)

    @property
    def slide(self) -> ViewerSlide | None:
        """Slide of the chosen section, else the chosen slide of the session."""
        section = self.section
        return self.session.slide if section is None or section.slide is None else section.slide

    @property
    def tile_map(self) -> GridOverlay | None:
        """Newest map of `slide` by the current checkpoint, see `find_tile_map`."""
        return find_tile_map(self.session, self.slide)

    def set_progress(self, stage: str, done: int = 0, total: int = 0) -> None:
        self.stage, self.progress = stage, (done, total)
        self.progress_changed.emit()

    def clear_comparison(self) -> None:
        had_comparison = self.comparison is not None or self.pair is not None
        self.comparison = self.early = self.pair = None
        if self.spot_row is not None:
            self.spot_row = None
            self.spot_changed.emit()
        if had_comparison:
            self.comparison_changed.emit()

    # ---- spots -------------------------------------------------------------------------

    def choose_spot(self, row: int | None) -> None:
        """Choose a spot by its row of the comparison and show its genes in the Predict panel."""
        if row == self.spot_row or (row is not None and self.comparison is None):
            return
        self.spot_row = row
        self.spot_changed.emit()
        if row is not None and self.pair is not None:
            self.session.set_spot(self.pair.prediction_at(row))

    def spot_values(self, row: int) -> SpotValues | None:
        """Return the values of the current gene at a row of the comparison, if it is measured."""
        comparison, gene = self.comparison, self.session.gene
        if comparison is None or gene is None or gene not in comparison.panel:
            return None
        column = comparison.panel.row(gene)
        return SpotValues(
            gene,
            comparison.spots.names[row] if comparison.spots.names else str(row + 1),
            float(comparison.measured[row, column]),
            float(comparison.predicted[row, column]),
        )

    def measured_labels(self, spot: Prediction) -> dict[str, float]:
        """Return the labels by gene at a clicked spot, if it is the chosen one, else nothing."""
        if self.comparison is None or self.spot_row is None:
            return {}
        return measured_labels_at(self.comparison, self.spot_row, spot)

    # ---- layout ------------------------------------------------------------------------

    def set_layout(self, layout: MapLayout) -> None:
        self.layout = layout
        self.layout_changed.emit()

    def show_map(self, kind: MapKind) -> None:
        """Stack the maps and show this one."""
        self.layout, self.visible_map, self.swipe = MapLayout.STACKED, kind, False
        self.layout_changed.emit()

    def blink(self) -> None:
        """Switch between the measured and the predicted map."""
        was_measured = self.visible_map is MapKind.MEASURED
        self.show_map(MapKind.PREDICTED if was_measured else MapKind.MEASURED)

    def set_swipe(self, enabled: bool) -> None:
        """Divide the maps at the mouse: measured on its left, predicted on its right."""
        self.swipe = enabled
        if enabled:
            self.layout = MapLayout.STACKED
        self.layout_changed.emit()
