"""The widget "DKAN: fine-tune"."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ....errors import DkanError, FewGenesError
from ...session.shortcut_actions import register_actions
from ...session.viewer_session import ViewerSession, get_session
from ...widgets.qt_utils import fill_column, make_text_label
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import make_heading, show_help_if_visible
from ..open_predict_panel import open_predict_panel
from ..quality.quality_controller import get_quality_controller
from .finetune_controller import FinetuneController, FinetuneRequest
from .finetune_layers import HeldOutPreview, LiveGeneMap
from .finetune_result_box import FinetuneResultBox
from .finetune_run_box import FinetuneRunBox
from .finetune_sections_box import FinetuneSectionsBox
from .finetune_settings_box import FinetuneSettingsBox


class FinetuneWidget(QWidget):
    """Fine-tunes the session's checkpoint; closing the widget ends the run."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: ViewerSession = get_session(napari_viewer)
        session, connections = self.session, SignalConnections()
        self.quality = get_quality_controller(session)
        self.controller = FinetuneController(self.quality, connections)
        self.model_label = make_text_label(selectable=True)
        self.sections_box = FinetuneSectionsBox(self.quality, connections)
        self.settings_box = FinetuneSettingsBox()
        self.held_out_preview = HeldOutPreview(
            session, self.sections_box, self.settings_box, connections
        )
        self.live_map = LiveGeneMap(session, self.controller, connections)
        self.run_box = FinetuneRunBox(self.controller, self.start, connections)
        self.message_label = make_text_label(selectable=True)
        self.notice_label = make_text_label(selectable=True)
        self.result_box = FinetuneResultBox(session, self.controller, connections)
        for label in (self.message_label, self.notice_label):
            set_text_color(label, ERROR_COLOR)
        self._build()
        self.sections_box.ticked_changed.connect(self._on_ticks_changed)
        connections.connect(self._show_model, session.checkpoint_changed)
        connections.connect(self._show_message, self.controller.message_changed)
        connections.connect(self._show_session_message, session.message.changed)
        connections.connect(self._lock_inputs, self.controller.changed)
        self.shut_down = call_once(
            connections.disconnect_all,
            self._register_actions(),
            self.controller.close,
            self.held_out_preview.shut_down,
        )
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._show_model()
        self._on_ticks_changed()
        self._show_message("", False)
        self._show_session_message()
        open_predict_panel(self, napari_viewer)

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        boxes: dict[str, tuple[QWidget, ...]] = {
            "Model": (self.model_label,),
            "Learn from": (self.sections_box, self.notice_label),
            "How": (
                self.settings_box,
                self.held_out_preview,
                self.live_map,
                self.settings_box.advanced_options,
            ),
            "": (self.run_box, self.message_label, self.result_box),
        }
        for title, widgets in boxes.items():
            if title:
                column.addWidget(make_heading(title, "finetune" if title == "Model" else ""))
            for widget in widgets:
                column.addWidget(widget)
        column.addStretch(1)
        fill_column(self, ScrollColumn(content, "fine-tune"))

    def start(self) -> None:
        """Start a run with the chosen settings; what is missing is shown below the button."""
        try:
            request = FinetuneRequest(
                self.sections_box.ticked_sections(),
                self.sections_box.unticked_sections(),
                self.settings_box.tune_settings(),
                self.settings_box.new_genes_path,
            )
            self.controller.start(request)
        except FewGenesError:
            sentence = "Few genes of a section are in the checkpoint; tick above to use them."
            self._show_message(sentence, True)
        except DkanError as error:
            self._show_message(str(error), True)

    def _register_actions(self) -> Callable[[], None]:
        return register_actions(
            self.session.viewer,
            finetune=self.run_box.start_button.click,
            help=lambda: show_help_if_visible("finetune", self),
        )

    def _show_session_message(self) -> None:
        """Show warnings of the session, e.g. about a section that cannot be read."""
        message = self.session.message
        is_shown = message.is_warning and message.text != self.quality.few_genes_notice
        self.notice_label.setText(message.text if is_shown else "")
        self.notice_label.setVisible(bool(self.notice_label.text()))

    def _show_model(self) -> None:
        checkpoint = self.session.checkpoint
        title = "being loaded ..." if checkpoint is None else checkpoint.title
        self.model_label.setText(title)

    def _on_ticks_changed(self) -> None:
        self.settings_box.set_section_count(len(self.sections_box.ticked_sections()))

    def _lock_inputs(self) -> None:
        """Disable the inputs of a run until it ends."""
        for box in (self.sections_box, self.settings_box, self.settings_box.advanced_options):
            box.setEnabled(not self.controller.busy)

    def _show_message(self, text: str, warning: bool) -> None:
        self.message_label.setText(text)
        self.message_label.setVisible(bool(text))
        set_text_color(self.message_label, ERROR_COLOR if warning else None)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
