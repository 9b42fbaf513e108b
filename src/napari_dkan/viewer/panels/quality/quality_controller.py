"""Controller of the quality-control panel, one per session: load, register, compare and select.

Widgets read its attributes, call its methods and connect to its signals. All signals are emitted
in the GUI thread. Messages go to the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Points
from psygnal import Signal

from ...session.viewer_session import ViewerSession, get_component
from ...tools.landmarks import LandmarkRegistration
from ...tools.spot_picking import SpotPicker
from ...widgets.signal_connections import SignalConnections
from .data.comparison_worker import (
    ComparisonProgress,
    ComparisonWorker,
    MeasuredPredictedPair,
    measured_labels_at,
)
from .data.loaded_section import (
    LoadedSection,
    SectionCandidate,
    landmark_registration,
    show_only_section,
)
from .data.quality_model import MapKind, MapLayout
from .data.section_loader import (
    LoadRequest,
    LoadResult,
    SectionCandidates,
    SectionLayerSync,
    SectionLoader,
)
from .data.slide_matching import place_on_slide
from .maps.section_map_layout import LayoutShortcuts, SectionMapLayout
from .maps.section_maps import SectionMaps

if TYPE_CHECKING:
    from ....inference.prediction import Prediction
    from ....quality.comparison import Comparison
    from ....spatial.coordinates import AffineTransform


class QualityController:
    """Measured sections of one session and their comparison with its checkpoint."""

    sections_changed = Signal()  # loaded or removed, or what is offered in `choices`
    section_changed = Signal()  # another one is chosen, or it was registered anew
    comparison_changed = Signal()
    prediction_updated = Signal()  # the prediction at the spots has new values
    spot_changed = Signal()
    layout_changed = Signal()  # layout, shown, swipe
    progress_changed = Signal()  # busy, progress, stage
    landmarks_changed = Signal()  # begun, one more click, ended

    def __init__(self, session: ViewerSession) -> None:
        self.session = session
        self.sections: list[LoadedSection] = []
        self.section: LoadedSection | None = None
        self.candidates: tuple[
            SectionCandidate, ...
        ] = ()  # further sections of the folder loaded last
        self.comparison: Comparison | None = None
        self.pair: MeasuredPredictedPair | None = (
            None  # labels, and the prediction as far as it is there
        )
        self.spot_row: int | None = None  # row of `pair` and of `comparison`
        self.landmarks: LandmarkRegistration | None = None  # set while they are being clicked
        self.layout = MapLayout.STACKED
        self.visible_map = MapKind.MEASURED
        self.swipe = False
        self.stage = ""  # what is being done, for people
        self.progress = (0, 0)
        self._comparison_worker = ComparisonWorker(
            session, self._on_comparison_item, self._set_progress
        )
        self._section_loader = SectionLoader(
            session, self._on_candidates, self._on_section_loaded, self._set_progress
        )
        self._connections = links = SignalConnections()
        self._section_maps = SectionMaps(self, links)
        self._map_layout = SectionMapLayout(self, links, self._section_maps)
        self._spot_picker, self._shortcuts = SpotPicker(self), LayoutShortcuts(self)
        links.connect(self.compare, session.checkpoint_changed, session.slide_changed)
        links.connect(self._recompute_placement, session.tissue_edited)
        links.connect(self._on_session_spot_changed, session.spot_changed)
        self._layer_sync = SectionLayerSync(self, links, self._section_loader)

    @property
    def busy(self) -> bool:
        return self._section_loader.busy or self._comparison_worker.busy

    def close(self) -> None:
        """Let go of the viewer; the layers stay."""
        self._section_loader.close()
        self._comparison_worker.close()
        self.end_landmarks()
        self.set_layout(MapLayout.STACKED)
        self._spot_picker.close()
        self._shortcuts.close()
        self._map_layout.close()
        self._connections.disconnect_all()
        self.session.components.pop(QualityController, None)

    # ---- loading ---------------------------------------------------------------------

    def load(self, paths: Sequence[Path], image: Path | None = None) -> None:
        """Read a folder, a file, or counts and spots; of several sections in a folder the one
        of the open slide, else the first. The others are `choices`."""
        self._section_loader.enqueue(LoadRequest(tuple(Path(p) for p in paths), image))

    def load_candidate(self, candidate: SectionCandidate) -> None:
        """Read one of the sections on offer."""
        self._section_loader.enqueue(LoadRequest((candidate.source,), candidate.image, candidate))

    def cancel(self) -> None:
        """Stop reading and comparing; what is loaded stays."""
        if not self.busy:
            return
        self._section_loader.cancel()
        self._comparison_worker.reset()
        self._set_progress("")
        self.session.message.show("Cancelled.")

    def _on_candidates(self, item: SectionCandidates) -> None:
        self.candidates = item.candidates
        self.sections_changed.emit()

    def _on_section_loaded(self, request: LoadRequest, item: LoadResult) -> None:
        session, section = self.session, item.section
        known = next((s for s in self.sections if s.has_same_source(section)), None)
        if known is not None and (item.match is None or known is not section):
            self._section_loader.remove_empty_layer(request)
            self.choose_section(known)
            return
        if item.match is None:
            note = f"Open the slide of {section.name} to see its spots on it."
        else:
            note = place_on_slide(session, section, item.match)
        if known is None:
            self._section_maps.add_section(section, request.layer)
            self.sections = [*self.sections, section]
            self.sections_changed.emit()
        else:
            self._section_maps.update_positions(section)
        self.choose_section(section)
        self.section_changed.emit()
        if note:
            session.message.show(note, warning=True)

    # ---- sections ----------------------------------------------------------------------

    def choose_section(self, section: LoadedSection | None) -> None:
        """Show and compare this section, on its slide."""
        if section is not self.section:
            self.end_landmarks()
            self.section = section
            self._reset_comparison()
            if section is not None and section.slide is not None:
                self.session.viewer_slides.set_current(section.slide)
                show_only_section(section, self.sections, self.session)
            self.section_changed.emit()
        self.compare()

    def remove_section(self, section: LoadedSection) -> None:
        """Let go of a section and its layers."""
        layers = self.session.viewer.layers
        if section.layer is not None and section.layer in layers:
            layers.remove(section.layer)  # which comes back here
            return
        if section not in self.sections:
            return
        self.sections = [s for s in self.sections if s is not section]
        if section is self.section:
            self.choose_section(self.sections[-1] if self.sections else None)
        self.sections_changed.emit()

    def detach_slide(self, section: LoadedSection) -> None:
        """Its slide was closed: the section waits until it is opened again."""
        section.slide, section.placement = None, None
        if section is self.section:
            self.end_landmarks()
            self._reset_comparison()
            self.section_changed.emit()
            sentence = f"The slide of {section.name} was closed; open it again to compare."
            self.session.message.show(sentence, warning=True)

    # ---- registration --------------------------------------------------------------------

    def register_section(
        self, affine: AffineTransform, registration: str, slide: Any = None
    ) -> None:
        """Lay the chosen section on a slide (default: where it lies, else the chosen slide);
        the affine map takes its own px to the slide's level-0 px."""
        section = self.section
        slide = slide or (section and section.slide) or self.session.slide
        if section is None or slide is None:
            return
        section.place_on(slide, affine, registration)
        self._reset_comparison()
        self._section_maps.update_positions(section)
        self.session.message.show("")  # what was said of where it lay before
        self.session.viewer_slides.set_current(slide)
        show_only_section(section, self.sections, self.session)
        self.section_changed.emit()
        self.compare()

    def start_landmarks(self) -> None:
        """Start clicking the same places on the section's own image (or its spots) and on the
        chosen slide; see `registration.Landmarks`, which is in `landmarks` until it ends."""
        session, section = self.session, self.section
        if section is None or session.slide is None:
            session.message.show("Load measured spots and open a slide first.", warning=True)
            return
        self.end_landmarks()
        self.set_layout(MapLayout.STACKED)
        self.landmarks = LandmarkRegistration(self, section, session.slide)
        self.landmarks_changed.emit()

    def end_landmarks(self, apply: bool = False) -> None:
        """Leave the guided mode; keep : use what was clicked."""
        landmarks, self.landmarks = self.landmarks, None
        if landmarks is None:
            return
        affine, count = landmarks.affine, len(landmarks.pairs)
        landmarks.close()
        self.landmarks_changed.emit()
        if apply and affine is not None and landmarks.section is self.section:
            self.register_section(affine, landmark_registration(count), landmarks.slide)

    def _recompute_placement(self) -> None:
        """The tissue was edited by hand: count again which spots lie off it."""
        if self.section is not None:
            self.section.placement = None
            self._comparison_worker.reset()
            self.compare()

    # ---- comparing -----------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots of the chosen section, unless that is what is there."""
        section = self.section
        if (
            section is None
            or section.slide is None
            or self._comparison_worker.is_up_to_date(section)
        ):
            return
        self._reset_comparison()
        self._comparison_worker.start(section)

    def _on_comparison_item(self, item: Any) -> None:
        from ....quality.registration_check import RegistrationCheck

        section = self.section
        if section is None:
            return
        if isinstance(item, RegistrationCheck):
            section.placement = item
            if item.warning:
                self.session.message.show(f"{section.name}: {item.warning}", warning=True)
            self.section_changed.emit()
        elif isinstance(item, MeasuredPredictedPair):
            self.pair = item
            self.prediction_updated.emit()
        elif isinstance(item, ComparisonProgress):
            self.prediction_updated.emit()
        else:
            self.comparison = item
            self.comparison_changed.emit()

    def _reset_comparison(self) -> None:
        """The comparison no longer holds."""
        had = self.comparison is not None or self.pair is not None
        self._comparison_worker.reset()
        self.comparison = self.pair = None
        if self.spot_row is not None:
            self.spot_row = None
            self.spot_changed.emit()
        if had:
            self.comparison_changed.emit()

    def _set_progress(self, stage: str, done: int = 0, total: int = 0) -> None:
        self.stage, self.progress = stage, (done, total)
        self.progress_changed.emit()

    # ---- looking -------------------------------------------------------------------------

    def choose_spot(self, row: int | None) -> None:
        """Choose a spot by its row; its genes are shown in the Predict panel too."""
        if row == self.spot_row or (row is not None and self.comparison is None):
            return
        self.spot_row = row
        self.spot_changed.emit()
        if row is not None and self.pair is not None:
            self.session.set_spot(self.pair.prediction_at(row))

    def measured_labels(self, spot: Prediction) -> dict[str, float]:
        """By gene, the labels at the place of a clicked spot, where that is the chosen one."""
        if self.comparison is None or self.spot_row is None:
            return {}
        return measured_labels_at(self.comparison, self.spot_row, spot)

    def _on_session_spot_changed(self) -> None:
        """Another place was clicked, or none holds any more: that spot is no longer chosen."""
        spot = self.session.spot
        if self.spot_row is not None and (spot is None or not self.measured_labels(spot)):
            self.choose_spot(None)

    def map_layers(self) -> tuple[Points, ...]:
        """Measured, predicted and residual of the chosen section, as far as they are there."""
        return self._section_maps.existing_layers()

    def set_layout(self, layout: MapLayout) -> None:
        self.layout = layout
        self._apply_layout()

    def show_map(self, kind: MapKind) -> None:
        """Of the stacked maps, show this one."""
        self.layout, self.visible_map, self.swipe = MapLayout.STACKED, kind, False
        self._apply_layout()

    def blink(self) -> None:
        """Measured, predicted, measured, ..."""
        was_measured = self.visible_map is MapKind.MEASURED
        self.show_map(MapKind.PREDICTED if was_measured else MapKind.MEASURED)

    def set_swipe(self, enabled: bool) -> None:
        """A divider that follows the mouse: measured on its left, predicted on its right."""
        self.swipe = enabled
        if enabled:
            self.layout = MapLayout.STACKED
        self._apply_layout()

    def _apply_layout(self) -> None:
        self._section_maps.restore_missing()
        self.layout_changed.emit()


def get_quality_controller(session: ViewerSession) -> QualityController:
    """The state of a session, made when first asked for."""
    return get_component(session, QualityController)
