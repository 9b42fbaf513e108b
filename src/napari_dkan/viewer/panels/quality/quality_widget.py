"""The widget "DKAN: quality control"."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from ...session.shortcut_actions import register_actions
from ...session.viewer_session import ViewerSession, get_session
from ...widgets.qt_utils import make_collapsible
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import make_heading, show_help_if_visible
from ..open_predict_panel import open_predict_panel
from .boxes.domains_box import DomainsBox
from .boxes.gene_metrics_box import GeneMetricsBox, ScatterBox
from .boxes.gene_sets_box import GeneSetsBox
from .boxes.measured_box import MeasuredBox
from .boxes.model_comparison_box import ModelComparisonBox
from .boxes.report_box import ReportBox
from .boxes.summary_box import SummaryBox
from .data.comparison_metrics import ComparisonMetrics
from .maps.value_maps import ValueMapLayers
from .quality_controller import get_quality_controller


class ValueMapsBox(QWidget):
    """Side by side or on the slide, or away; there while such maps are."""

    def __init__(self, value_maps: ValueMapLayers, connections: SignalConnections) -> None:
        super().__init__()
        self._value_maps = value_maps
        self.side_by_side_checkbox = QCheckBox("these maps side by side")
        self.remove_button = QPushButton("Remove them")
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.side_by_side_checkbox, 1)
        line.addWidget(self.remove_button)
        self.side_by_side_checkbox.clicked.connect(value_maps.set_side_by_side)
        self.remove_button.clicked.connect(value_maps.remove)
        connections.connect(self.refresh, value_maps.changed)
        self.refresh()

    def refresh(self) -> None:
        self.setVisible(bool(self._value_maps.layers))
        self.side_by_side_checkbox.setChecked(self._value_maps.is_side_by_side)


class QualityWidget(QWidget):
    """DKAN: quality control. Shares the viewer's session with the Predict panel."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: ViewerSession = get_session(napari_viewer)
        self.quality = get_quality_controller(self.session)
        session, quality, links = self.session, self.quality, SignalConnections()
        self.metrics = ComparisonMetrics(session, quality, links)
        self.value_maps = ValueMapLayers(quality, links)
        self.measured_box = MeasuredBox(session, quality, links, self.value_maps)
        self.summary_box = SummaryBox(session, quality, links, self.metrics)
        self.gene_metrics_box = GeneMetricsBox(session, quality, links, self.metrics)
        self.scatter_box = ScatterBox(session, quality, links)
        self.gene_sets_box = GeneSetsBox(session, quality, links, self.value_maps)
        self.domains_box = DomainsBox(session, quality, links, self.value_maps)
        self.model_comparison_box = ModelComparisonBox(session, quality, links, self.value_maps)
        self.value_maps_box = ValueMapsBox(self.value_maps, links)
        self.report_box = ReportBox(session, quality, links)
        self.message_label = QLabel()
        self.message_label.setWordWrap(True)
        self.message_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.collapsibles: dict[str, QCollapsible] = {}
        self._comparison_widgets: list[QWidget] = []
        self._build()
        links.connect(self._show_message, session.message.changed)
        links.connect(self._update_visibility, quality.comparison_changed)
        self.shut_down = call_once(
            links.disconnect_all,
            self._register_actions(),
            self.metrics.close,
            self.gene_sets_box.stop_jobs,
            self.domains_box.stop_jobs,
            self.model_comparison_box.stop_jobs,
            self.report_box.stop_jobs,
            self.summary_box.outline.remove,
            self.value_maps.remove,
        )
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._show_message()
        self._update_visibility()
        open_predict_panel(self, napari_viewer)

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        column.addWidget(make_heading("Measured", "quality"))
        column.addWidget(self.measured_box)
        column.addWidget(self.message_label)
        shown: dict[str, QWidget] = {
            "Summary": self.summary_box,
            "Genes": self.gene_metrics_box,
            "This gene": self.scatter_box,
        }
        for title, box in shown.items():
            heading = make_heading(title)
            self._comparison_widgets += [heading, box]
            column.addWidget(heading)
            column.addWidget(box)
        seldom: dict[str, QWidget] = {
            "Gene sets": self.gene_sets_box,
            "Domains": self.domains_box,
            "Two checkpoints": self.model_comparison_box,
        }
        for title, box in seldom.items():
            self.collapsibles[title] = make_collapsible(title, box)
            column.addWidget(self.collapsibles[title])
        column.addWidget(self.value_maps_box)
        column.addWidget(self.report_box)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(ScrollColumn(content))

    def _register_actions(self) -> Callable[[], None]:
        return register_actions(
            self.session.viewer,
            cancel=self.quality.cancel,
            load_section=self.measured_box.open_load_menu,
            report=self.report_box.report_button.click,
            help=lambda: show_help_if_visible("quality", self),
        )

    def _show_message(self) -> None:
        session = self.session
        self.message_label.setText(session.message.text)
        self.message_label.setVisible(bool(session.message.text))
        set_text_color(self.message_label, ERROR_COLOR if session.message.is_warning else None)

    def _update_visibility(self) -> None:
        """Without a comparison there is nothing to sum up yet."""
        for widget in self._comparison_widgets:
            widget.setVisible(self.quality.comparison is not None)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
