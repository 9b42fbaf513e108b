"""The dock widget for prediction: slide, model, target, gene, spot and results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from ...jobs.gene_decode_job import GeneDecodeJob
from ...jobs.prediction_jobs import PredictionJobs
from ...jobs.prefetcher import Prefetcher
from ...jobs.viewport import Viewport
from ...layers.overlay_display import OverlayDisplay
from ...layers.reliability_overlay import ReliabilityOverlay
from ...layers.spot_marker import SpotMarker
from ...session.shortcut_actions import ArrowKeyBindings, register_actions
from ...session.viewer_session import ViewerSession, get_session
from ...session.viewer_settings import connect_preferences
from ...tools.click_predictor import ClickPredictor
from ...tools.color_mix import ColorMix
from ...tools.gene_lens import GeneLens
from ...widgets.qt_utils import fill_column, make_collapsible, make_row
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import make_heading, show_help_if_visible
from ..results.restore_result import show_saved_spot
from ..results.results_box import ResultsBox
from ..results.results_controller import get_results_controller
from ..undo_buttons import UndoButtons
from .advanced_box import CacheBox, TimingBox, make_advanced_box
from .gene_box import GeneBox
from .model_box import ModelBox
from .reopen_box import ReopenBox
from .several_genes_box import SeveralGenesBox
from .slide_box import SlideBox
from .slide_check_banner import SlideCheckBanner
from .spot_box import SpotBox
from .target_box import MODE_OF_ACTION, TargetBox
from .tool_boxes import LensBox, OcclusionBox

HELP_TOPICS = {
    "Slide": "slide",
    "Model": "model",
    "Where": "where",
    "Gene": "gene",
    "This spot": "spot",
    "Results": "results",
}


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
        self.spot_marker = SpotMarker(session, connections)
        self.slide_box = SlideBox(session, connections)
        self.reopen_box = ReopenBox(session, connections)
        self.slide_check_banner = SlideCheckBanner(session, connections, self.prefetcher)
        self.model_box = ModelBox(session, connections)
        self.target_box = TargetBox(session, connections, self.prediction_jobs, self.prefetcher)
        self.gene_box = GeneBox(session, connections, self.display, self.reliability)
        self.lens = GeneLens(session, connections, self.prediction_jobs, self.display)
        self.lens_box = LensBox(self.lens, connections)
        self.color_mix = ColorMix(session, connections)
        self.several_genes_box = SeveralGenesBox(session, connections, self.color_mix)
        self.spot_box = SpotBox(session, connections)
        self.occlusion_box = OcclusionBox(session, connections)
        self.results = get_results_controller(session)
        self.results.get_regions_layer = self.target_box.regions_layer
        self.results_box = ResultsBox(self.results, connections)
        self.message_label = QLabel()
        self.message_label.setWordWrap(True)
        self.message_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.undo_buttons = UndoButtons(session, connections)
        self.advanced = make_advanced_box(session, connections)
        self.cache_box = CacheBox(session, connections)
        self.timing_box = TimingBox(session)
        self._build_layout()
        connections.connect(self._show_message, session.message.changed)
        connections.connect(self._switch_to_cpu, self.prediction_jobs.out_of_memory)
        connections.connect(
            lambda: self.gene_decode_job.set_paused(self.prediction_jobs.busy),
            self.prediction_jobs.changed,
        )
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
            self.prediction_jobs.close,
            self.gene_decode_job.close,
            self.cache_box.stop_jobs,
            self.timing_box.stop,
            self.click_predictor.close,
            self.slide_check_banner.stop_jobs,
            self.prefetcher.close,
            self.model_box.stop_jobs,
            self.reliability.close,
            self.spot_marker.close,
            self.display.close,
        )
        self.destroyed.connect(self.shut_down)  # a deleted dock receives no closeEvent
        self._show_message()
        self.prefetcher.restart()

    def _build_layout(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        message_row = QWidget()
        fill_column(message_row, make_row((self.message_label, 1), self.undo_buttons))
        boxes: dict[str, QWidget] = {
            "Slide": self.slide_box,
            "Model": self.model_box,
            "Where": self.target_box,
            "": message_row,
            "Gene": self.gene_box,
            "This spot": self.spot_box,
            "Results": self.results_box,
        }
        for title, box in boxes.items():
            if title:
                column.addWidget(make_heading(title, HELP_TOPICS.get(title, "")))
            column.addWidget(box)
            if box is self.slide_box:
                column.addWidget(self.reopen_box)
                column.addWidget(self.slide_check_banner)
            if box is self.gene_box:
                column.addWidget(self.lens_box)
                column.addWidget(self.several_genes_box)
            if box is self.spot_box:
                column.addWidget(self.occlusion_box)
        column.addWidget(
            make_collapsible("Advanced", self.advanced.native, self.cache_box, self.timing_box)
        )
        column.addStretch(1)
        area = ScrollColumn(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)

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
            find_gene=gene.focus_search,
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
        """Choose the CPU when the GPU is too small; Predict then continues."""
        self.advanced["device"].value = "cpu"
        self.session.message.show(
            f"{self.session.message.text} The CPU is chosen now; press Predict to go on.",
            warning=True,
        )

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
