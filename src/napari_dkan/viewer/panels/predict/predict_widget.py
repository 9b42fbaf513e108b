"""The dock widget for prediction: slide, model, target, gene, spot and results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari.viewer import Viewer
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...jobs.gene_decode_job import GeneDecodeJob
from ...jobs.prediction_jobs import PredictionJobs
from ...jobs.prefetcher import Prefetcher
from ...jobs.viewport import Viewport
from ...layers.name_halos import NameHalos
from ...layers.overlay_display import OverlayDisplay
from ...layers.reliability_overlay import ReliabilityOverlay
from ...layers.spot_marker import SpotMarker
from ...layers.spread_map import SpreadMap
from ...session.shortcut_actions import PREDICT_PANEL, ArrowKeyBindings, register_actions
from ...session.viewer_session import ViewerSession, get_session
from ...session.viewer_settings import connect_preferences
from ...tools.click_predictor import ClickPredictor
from ...tools.color_mix import ColorMix
from ...tools.file_drop import FileDrop
from ...tools.gene_lens import GeneLens
from ...tools.overview import ScaleBar, SlideOverview
from ...tools.similar_tiles import SimilarTiles
from ...widgets.qt_utils import fill_column, make_text_label
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import show_help_if_visible
from ..results.restore_result import show_saved_spot
from ..results.results_box import ResultsBox
from ..results.results_controller import get_results_controller
from ..sections import has_room_for_details, make_section
from ..undo_buttons import UndoButtons
from .advanced_box import CacheBox, TimingBox, make_advanced_box
from .find_box import FindBox
from .gene_box import GeneBox
from .model_box import ModelBox
from .reopen_box import ReopenBox
from .several_genes_box import SeveralGenesBox
from .slide_box import SlideBox
from .slide_check_banner import SlideCheckBanner
from .spot_box import GeneBars, SpotBox
from .target_box import MODE_OF_ACTION, TargetBox
from .tool_boxes import LensBox, OcclusionBox


class PredictWidget(QWidget):
    """The panel "DKAN: predict"; its state is in the session of the viewer."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: ViewerSession = get_session(napari_viewer)
        session, connections = self.session, SignalConnections()
        viewport = Viewport(session, connections)
        self.prediction_jobs = PredictionJobs(session, connections, viewport)
        self.prefetcher = Prefetcher(session, connections, viewport)
        self.click_predictor = ClickPredictor(
            session, connections, partial(show_saved_spot, session)
        )
        self.display = OverlayDisplay(session, connections)
        self.gene_decode_job = GeneDecodeJob(session, connections)
        self.reliability = ReliabilityOverlay(session, connections)
        self.spread_map = SpreadMap(session, connections)
        self.spot_marker = SpotMarker(session, connections)
        self.name_halos = NameHalos(session, connections)
        self.scale_bar = ScaleBar(session, connections)
        self.overview = SlideOverview(session, connections)
        self.file_drop = FileDrop(session)
        self.slide_box = SlideBox(session, connections)
        self.reopen_box = ReopenBox(session, connections)
        self.slide_check_banner = SlideCheckBanner(session, connections, self.prefetcher)
        self.model_box = ModelBox(session, connections)
        self.target_box = TargetBox(session, connections, self.prediction_jobs, self.prefetcher)
        self.gene_box = GeneBox(
            session, connections, self.display, self.reliability, self.spread_map
        )
        self.lens = GeneLens(session, connections, self.prediction_jobs, self.display)
        self.lens_box = LensBox(self.lens, connections)
        self.color_mix = ColorMix(session, connections)
        self.several_genes_box = SeveralGenesBox(session, connections, self.color_mix)
        self.similar_tiles = SimilarTiles(session, connections)
        self.find_box = FindBox(session, connections, self.similar_tiles)
        self.spot_box = SpotBox(session, connections)
        self.occlusion_box = OcclusionBox(session, connections)
        self.results = get_results_controller(session)
        self.results.get_regions_layer = self.target_box.regions_layer
        self.results_box = ResultsBox(self.results, connections)
        self.message_label = make_text_label(selectable=True)
        self.undo_buttons = UndoButtons(session, connections)
        self.advanced = make_advanced_box(session, connections)
        self.cache_box = CacheBox(session, connections)
        self.timing_box = TimingBox(session)
        self._build_layout()
        self._connect_sections(connections)
        connections.connect(self._show_message, session.message.changed)
        connections.connect(self._leave_similar_tiles, self.color_mix.changed)
        connections.connect(self._leave_color_mix, self.similar_tiles.changed)
        connections.connect(self._switch_to_cpu, session.device_failed)
        connections.connect(
            lambda: self.gene_decode_job.set_paused(self.prediction_jobs.busy),
            self.prediction_jobs.changed,
        )
        connections.connect(self.spot_box.refresh, self.gene_decode_job.finished)
        connections.connect(self.model_box.stop_jobs, self.results.about_to_restore_checkpoint)
        connect_preferences(session, connections)
        self.arrow_keys = ArrowKeyBindings(session, connections)
        self.shut_down = call_once(
            connections.disconnect_all,
            self.arrow_keys.close,
            self._register_actions(),
            self.slide_box.ruler.close,
            self.target_box.stop,
            self.occlusion_box.explainer.close,
            self.results_box.unregister_actions,
            self.results.close,
            self.lens.close,
            self.color_mix.close,
            self.similar_tiles.close,
            self.prediction_jobs.close,
            self.gene_decode_job.close,
            self.cache_box.stop_jobs,
            self.timing_box.stop,
            self.click_predictor.close,
            self.slide_check_banner.stop_jobs,
            self.prefetcher.close,
            self.model_box.stop_jobs,
            self.reliability.close,
            self.spread_map.close,
            self.spot_marker.close,
            self.name_halos.close,
            self.overview.close,
            self.file_drop.close,
            self.display.close,
        )
        self.destroyed.connect(self.shut_down)  # a deleted dock receives no closeEvent
        self._show_message()
        self.prefetcher.restart()

    def _build_layout(self) -> None:
        """Stack the sections; warnings stand below their header, so that folding hides none."""
        section = partial(make_section, PREDICT_PANEL)
        self.display_section = section(
            "Limits, colours, lens",
            self.gene_box.display_box,
            self.lens_box,
            opened=has_room_for_details(),
        )
        self.more_section = section(
            "Several genes, gene sets",
            self.several_genes_box,
            self.gene_box.more_box,
            topic="several",
        )
        self.find_section = section(
            "Find genes and tiles like this", self.find_box, topic="several"
        )
        self.sections = {
            "Slide": section("Slide", self.slide_box, topic="slide", with_change_button=True),
            "Model": section("Model", self.model_box, topic="model", with_change_button=True),
            "Where": section(
                "Where", self.target_box, topic="where", corner=self.undo_buttons, opened=True
            ),
            "Gene": section(
                "Gene",
                self.gene_box,
                self.display_section,
                self.more_section,
                self.find_section,
                topic="gene",
                opened=True,
            ),
            "This spot": section(
                "This spot", self.spot_box, self.occlusion_box, topic="spot", opened=True
            ),
            "Results": section("Results", self.results_box, topic="results"),
            "Advanced": section("Advanced", self.advanced.native, self.cache_box, self.timing_box),
        }
        # The canvas must not change its size when the first bars appear.
        self.sections["This spot"].setMinimumWidth(GeneBars.MIN_WIDTH)
        below: dict[str, tuple[QWidget, ...]] = {
            "Slide": (self.slide_box.slide_list, self.reopen_box, self.slide_check_banner),
            "Model": (self.model_box.trained_on_label, self.model_box.encoder_weights_box),
            "Where": (self.message_label,),
        }
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(4)
        for title, box in self.sections.items():
            for widget in (box, *below.get(title, ())):
                column.addWidget(widget)
        column.addStretch(1)
        self.scroll_column = ScrollColumn(content, "predict")
        fill_column(self, self.scroll_column)

    def _connect_sections(self, connections: SignalConnections) -> None:
        """Keep the summaries of folded sections, and what was just asked for in sight."""
        session, slide_box = self.session, self.slide_box
        connections.connect(self._summarize_slide, session.slides_changed, session.slide_changed)
        connections.connect(self._summarize_slide, slide_box.ruler.changed)
        self.model_box.changed.connect(self._summarize_model)
        self.file_drop.checkpoint_dropped.connect(self.model_box.load)
        connections.connect(self._summarize_spot, session.spot_changed, session.gene_changed)
        connections.connect(self._reveal_spot, session.spot_changed)
        connections.connect(self._show_results, self.results.changed)
        self.sections["Slide"].change_button.clicked.connect(slide_box.show_entry)
        for summarize in (self._summarize_slide, self._summarize_model, self._summarize_spot):
            summarize()

    def _find_gene(self) -> None:
        self.sections["Gene"].expand()
        self.gene_box.focus_search()

    def _summarize_slide(self, event: object = None) -> None:
        section = self.sections["Slide"]
        section.set_summary(self.slide_box.summarize())
        section.set_needed(self.slide_box.waits_for_user)

    def _summarize_model(self) -> None:
        self.sections["Model"].set_summary(self.model_box.summarize())

    def _leave_similar_tiles(self) -> None:
        """One layer at a time stands for the map."""
        if self.color_mix.genes and self.similar_tiles.active:
            self.similar_tiles.set_active(False)

    def _leave_color_mix(self) -> None:
        if self.similar_tiles.active and self.color_mix.genes:
            self.color_mix.show(())

    def _summarize_spot(self) -> None:
        self.sections["This spot"].set_summary(self.spot_box.summarize())

    def _reveal_spot(self) -> None:
        if self.session.spot is not None:
            self.scroll_column.reveal(self.sections["This spot"])

    def _show_results(self) -> None:
        """Open the section while it has something to say."""
        results = self.results
        section = self.sections["Results"]
        section.set_needed(results.busy or bool(results.message))
        if section.is_open:
            self.scroll_column.reveal(section)

    def _register_actions(self) -> Callable[[], None]:
        """Register all actions but those of the lens and the occlusion map."""
        session, target, gene = self.session, self.target_box, self.gene_box
        modes = {name: target.mode_buttons[mode].click for name, mode in MODE_OF_ACTION.items()}
        return register_actions(
            session.viewer,
            predict=target.start_prediction,
            cancel=target.cancel_button.click,
            draw_region=target.draw_button.click,
            ruler=self.slide_box.toggle_ruler,
            next_gene=lambda: session.step_gene(1),
            previous_gene=lambda: session.step_gene(-1),
            find_gene=self._find_gene,
            pin_gene=gene.pin_button.click,
            limits=gene.toggle_fixed_limits,
            hatch=gene.hatch_checkbox.toggle,
            help=lambda: show_help_if_visible("where", self),
            **modes,
        )

    def _show_message(self) -> None:
        session = self.session
        self.message_label.setText(session.message.text)
        self.message_label.setVisible(bool(session.message.text))
        set_text_color(self.message_label, ERROR_COLOR if session.message.is_warning else None)

    def _switch_to_cpu(self) -> None:
        """Choose the CPU when the device fails; Predict then continues."""
        self.advanced["device"].value = "cpu"
        self.session.message.show(
            f"{self.session.message.text} The CPU is chosen now; press Predict, or click "
            "again, to go on.",
            warning=True,
        )

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.overview.attach(self.window())
        self.file_drop.attach(self.window())

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
