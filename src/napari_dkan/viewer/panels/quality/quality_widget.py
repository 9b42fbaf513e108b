"""The widget "DKAN: quality control"."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from ...session.shortcut_actions import QUALITY_PANEL, register_actions
from ...session.viewer_session import ViewerSession, get_session
from ...widgets.fold_section import FoldSection
from ...widgets.qt_utils import fill_column, make_row, make_text_label
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import make_heading, show_help_if_visible
from ..open_predict_panel import open_predict_panel
from ..sections import make_section
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
    """Arranges or removes the maps of a result; visible while there are any."""

    def __init__(self, value_maps: ValueMapLayers, connections: SignalConnections) -> None:
        super().__init__()
        self._value_maps = value_maps
        self.side_by_side_checkbox = QCheckBox("these maps side by side")
        self.remove_button = QPushButton("Remove them")
        fill_column(self, make_row((self.side_by_side_checkbox, 1), self.remove_button))
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
        session, connections = self.session, SignalConnections()
        model = self.quality.model
        self.metrics = ComparisonMetrics(model, connections)
        self.value_maps = ValueMapLayers(model, connections)
        self.measured_box = MeasuredBox(self.quality, connections, self.value_maps)
        self.summary_box = SummaryBox(connections, self.metrics)
        self.gene_metrics_box = GeneMetricsBox(connections, self.metrics)
        self.scatter_box = ScatterBox(model, connections)
        self.gene_sets_box = GeneSetsBox(model, connections, self.value_maps)
        self.domains_box = DomainsBox(model, connections, self.value_maps)
        self.model_comparison_box = ModelComparisonBox(model, connections, self.value_maps)
        self.value_maps_box = ValueMapsBox(self.value_maps, connections)
        self.report_box = ReportBox(model, connections)
        self.message_label = make_text_label(selectable=True)
        self.collapsibles: dict[str, FoldSection] = {}
        self._summary_widgets: list[QWidget] = []
        self._comparison_widgets: list[QWidget] = []
        self._build()
        connections.connect(self._show_message, session.message.changed)
        connections.connect(self._update_visibility, model.comparison_changed, model.early_changed)
        self.shut_down = call_once(
            connections.disconnect_all,
            self._register_actions(),
            self.metrics.close,
            self.gene_sets_box.job_row.stop,
            self.domains_box.job_row.stop,
            self.model_comparison_box.job_row.stop,
            self.report_box.job_row.stop,
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
        comparison_boxes: dict[str, QWidget] = {
            "Summary": self.summary_box,
            "Genes": self.gene_metrics_box,
            "This gene": self.scatter_box,
        }
        for title, box in comparison_boxes.items():
            heading = make_heading(title)
            is_early = box is self.summary_box
            (self._summary_widgets if is_early else self._comparison_widgets).extend([heading, box])
            column.addWidget(heading)
            column.addWidget(box)
        collapsed_boxes: dict[str, QWidget] = {
            "Gene sets": self.gene_sets_box,
            "Domains": self.domains_box,
            "Two checkpoints": self.model_comparison_box,
        }
        for title, box in collapsed_boxes.items():
            self.collapsibles[title] = make_section(QUALITY_PANEL, title, box)
            column.addWidget(self.collapsibles[title])
        column.addWidget(self.value_maps_box)
        column.addStretch(1)
        # Below what scrolls: the report is what many come for.
        fill_column(self, ScrollColumn(content, "quality"), self.report_box)
        self.report_box.setContentsMargins(9, 2, 9, 4)  # as of what scrolls

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
        is_shown = session.message.text not in ("", self.quality.few_genes_notice)
        self.message_label.setText(session.message.text if is_shown else "")
        self.message_label.setVisible(is_shown)
        set_text_color(self.message_label, ERROR_COLOR if session.message.is_warning else None)

    def _update_visibility(self) -> None:
        model = self.quality.model
        for widget in self._comparison_widgets:
            widget.setVisible(model.comparison is not None)
        for widget in self._summary_widgets:
            widget.setVisible(model.comparison is not None or model.early is not None)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
