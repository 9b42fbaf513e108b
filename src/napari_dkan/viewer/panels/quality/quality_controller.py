"""Controller of the quality-control panel, one per session: load, register and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import FewGenesError
from ...session.viewer_session import ViewerSession, get_component
from ...tools.landmarks import LandmarkRegistration
from ...widgets.signal_connections import SignalConnections
from .data.comparison_worker import (
    ComparisonProgress,
    ComparisonWorker,
    EarlyComparison,
    MeasuredPredictedPair,
)
from .data.loaded_section import (
    LoadedSection,
    SectionCandidate,
    landmark_registration,
    show_only_section,
)
from .data.quality_model import MapLayout, QualityModel
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
from .maps.spot_picking import SpotPicker

if TYPE_CHECKING:
    from ....spatial.coordinates import AffineTransform
    from ...session.slide_layer import ViewerSlide


class QualityController:
    """Changes the `QualityModel` of a session and draws its maps.

    Messages go to the session.

    Attributes
    ----------
    few_genes_notice : str
        The last message about a section with few genes; panels with a `FewGenesBox` say more.
    """

    def __init__(self, session: ViewerSession) -> None:
        self.session = session
        self.few_genes_notice = ""
        self.model = model = QualityModel(session)
        self._comparison_worker = ComparisonWorker(
            session, self._on_comparison_item, model.set_progress
        )
        self._section_loader = SectionLoader(
            session, self._on_candidates, self._on_section_loaded, model.set_progress
        )
        self._connections = connections = SignalConnections()
        self.section_maps = SectionMaps(model, connections)
        # After the maps: they restore their layers before these are arranged.
        self.map_layout = SectionMapLayout(model, connections, self.section_maps)
        self.spot_picker = SpotPicker(model, connections, self.section_maps.existing_layers)
        self._shortcuts = LayoutShortcuts(model)
        connections.connect(self.compare, session.checkpoint_changed, session.slide_changed)
        connections.connect(self._recompute_placement, session.tissue_edited)
        connections.connect(self._on_session_spot_changed, session.spot_changed)
        self._layer_sync = SectionLayerSync(
            model, connections, self._section_loader, self.remove_section, self.detach_slide
        )

    @property
    def busy(self) -> bool:
        return self._section_loader.busy or self._comparison_worker.busy

    def close(self) -> None:
        """Disconnect from the viewer; the layers stay."""
        self._section_loader.close()
        self._comparison_worker.close()
        self.end_landmarks()
        self.model.set_layout(MapLayout.STACKED)
        self._shortcuts.close()
        self.map_layout.close()
        self._connections.disconnect_all()
        self.session.components.pop(QualityController, None)

    # ---- loading ---------------------------------------------------------------------

    def load(self, paths: Sequence[Path], image: Path | None = None) -> None:
        """Read a folder, a file, or counts and spots.

        Of several sections in a folder that of the open slide is read, else the first; all of
        them are in `QualityModel.candidates`.
        """
        self._section_loader.enqueue(LoadRequest(tuple(Path(p) for p in paths), image))

    def load_candidate(self, candidate: SectionCandidate) -> None:
        self._section_loader.enqueue(LoadRequest((candidate.source,), candidate.image, candidate))

    def cancel(self) -> None:
        """Stop reading and comparing; loaded sections stay."""
        if not self.busy:
            return
        self._section_loader.cancel()
        self._comparison_worker.reset()
        self.model.set_progress("")
        self.session.message.show("Cancelled.")

    def _on_candidates(self, item: SectionCandidates) -> None:
        self.model.candidates = item.candidates
        self.model.sections_changed.emit()

    def _on_section_loaded(self, request: LoadRequest, item: LoadResult) -> None:
        model, section = self.model, item.section
        known = next((s for s in model.sections if s.has_same_source(section)), None)
        if known is not None and (item.match is None or known is not section):
            self._section_loader.remove_empty_layer(request)
            self.choose_section(known)
            return
        if item.match is None:
            note = f"Open the slide of {section.name} to see its spots on it."
        else:
            note = place_on_slide(self.session, section, item.match)
        if known is None:
            self.section_maps.add_section(section, request.layer)
            model.sections = [*model.sections, section]
            model.sections_changed.emit()
        else:
            self.section_maps.update_positions(section)
        self.choose_section(section)
        model.section_changed.emit()
        if not self.session.slides:
            self.session.viewer.reset_view()  # nothing else is there to look at
        if note:
            self.session.message.show(note, warning=True)

    # ---- sections ----------------------------------------------------------------------

    def choose_section(self, section: LoadedSection | None) -> None:
        """Show this section on its slide and compare it."""
        model = self.model
        if section is not model.section:
            self.end_landmarks()
            model.section = section
            self._reset_comparison()
            if section is not None and section.slide is not None:
                self.session.viewer_slides.set_current(section.slide)
                show_only_section(section, model.sections, self.session)
            model.section_changed.emit()
        self.compare()

    def remove_section(self, section: LoadedSection) -> None:
        """Remove a section and its layers."""
        model, layers = self.model, self.session.viewer.layers
        if section.layer is not None and section.layer in layers:
            layers.remove(section.layer)  # SectionLayerSync then calls this method again
            return
        if section not in model.sections:
            return
        model.sections = [s for s in model.sections if s is not section]
        if section is model.section:
            self.choose_section(model.sections[-1] if model.sections else None)
        model.sections_changed.emit()

    def detach_slide(self, section: LoadedSection) -> None:
        """Handle that the slide of a section was closed; it is found again when it is opened."""
        section.slide, section.placement = None, None
        if section is self.model.section:
            self.end_landmarks()
            self._reset_comparison()
            self.model.section_changed.emit()
            sentence = f"The slide of {section.name} was closed; open it again to compare."
            self.session.message.show(sentence, warning=True)

    # ---- registration --------------------------------------------------------------------

    def register_section(
        self, affine: AffineTransform, registration: str, slide: ViewerSlide | None = None
    ) -> None:
        """Place the chosen section on a slide.

        Parameters
        ----------
        affine
            From pixels of the section's own image to level-0 px of the slide.
        registration
            How it was registered, as shown in the panel.
        slide
            Default: the section's slide, else the chosen one.
        """
        model, section = self.model, self.model.section
        slide = slide or (section and section.slide) or self.session.slide
        if section is None or slide is None:
            return
        section.place_on(slide, affine, registration)
        self._reset_comparison()
        self.section_maps.update_positions(section)
        self.session.message.clear()  # a message about the previous placement is out of date
        self.session.viewer_slides.set_current(slide)
        show_only_section(section, model.sections, self.session)
        model.section_changed.emit()
        self.compare()

    def start_landmarks(self) -> None:
        """Start registering the chosen section on the chosen slide by landmarks."""
        session, section = self.session, self.model.section
        if section is None or session.slide is None:
            session.message.show("Load measured spots and open a slide first.", warning=True)
            return
        self.end_landmarks()
        self.model.set_layout(MapLayout.STACKED)
        landmarks = LandmarkRegistration(session, section, session.slide)
        landmarks.changed.connect(self.model.landmarks_changed.emit)
        self.model.landmarks = landmarks
        self.model.landmarks_changed.emit()

    def end_landmarks(self, apply: bool = False) -> None:
        """End the landmark mode; with ``apply`` register the section by what was clicked."""
        landmarks, self.model.landmarks = self.model.landmarks, None
        if landmarks is None:
            return
        affine, count = landmarks.affine, len(landmarks.pairs)
        landmarks.close()
        self.model.landmarks_changed.emit()
        if apply and affine is not None and landmarks.section is self.model.section:
            self.register_section(affine, landmark_registration(count), landmarks.slide)

    def _recompute_placement(self) -> None:
        """Check again which spots are off the tissue, after the tissue was edited."""
        if self.model.section is not None:
            self.model.section.placement = None
            self._comparison_worker.reset()
            self.compare()

    # ---- comparing -----------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots of the chosen section, unless its comparison is up to date."""
        section = self.model.section
        if (
            section is None
            or section.slide is None
            or self._comparison_worker.is_up_to_date(section)
        ):
            return
        self._reset_comparison()
        self.set_few_genes_refusal(section, "")
        self._comparison_worker.start(section)

    def accept_few_genes(self, section: LoadedSection, accepted: bool) -> None:
        """Use a section of which few genes are in the checkpoint's panel, or no longer."""
        section.accepts_few_genes = accepted
        section.few_genes_refusal = ""
        self.session.message.clear()
        self.model.section_changed.emit()
        self.compare()

    def set_few_genes_refusal(self, section: LoadedSection, refusal: str) -> None:
        """Set why a section is not used; the panels show it with a check box that accepts it."""
        if refusal != section.few_genes_refusal:
            section.few_genes_refusal = refusal
            self.model.section_changed.emit()

    def _on_comparison_item(self, item: Any) -> None:
        from ....quality.registration_check import RegistrationCheck

        model, section = self.model, self.model.section
        if section is None:
            return
        if isinstance(item, RegistrationCheck):
            section.placement = item
            if item.warning:
                self.session.message.add_warning(f"{section.name}: {item.warning}")
            model.section_changed.emit()
        elif isinstance(item, FewGenesError):
            self.set_few_genes_refusal(section, item.finding)
            self.few_genes_notice = (
                f"{section.name} is not compared: few of its genes are in the checkpoint. The "
                "panel DKAN: quality control offers to use these few."
            )
            self.session.message.show(self.few_genes_notice, warning=True)
        elif isinstance(item, MeasuredPredictedPair):
            model.pair = item
            model.prediction_updated.emit()
        elif isinstance(item, ComparisonProgress):
            model.prediction_updated.emit()
        elif isinstance(item, EarlyComparison):
            model.early = item
            model.early_changed.emit()
        else:
            model.comparison = item
            model.comparison_changed.emit()

    def _reset_comparison(self) -> None:
        self._comparison_worker.reset()
        self.model.clear_comparison()

    def _on_session_spot_changed(self) -> None:
        """Another place was clicked, or the spot was cleared: no spot is chosen here."""
        model, spot = self.model, self.session.spot
        if model.spot_row is not None and (spot is None or not model.measured_labels(spot)):
            model.choose_spot(None)


def get_quality_controller(session: ViewerSession) -> QualityController:
    """Return the controller of a session; create it at first use."""
    return get_component(session, QualityController)
