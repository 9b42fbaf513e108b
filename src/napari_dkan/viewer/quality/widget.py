"""The panel "DKAN: quality control": measured beside predicted, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from ..actions import answer
from ..column import Column, heading_of
from ..folded import folded
from ..help import show_in_front
from ..links import Links, once
from ..session import Session, session_of
from ..tones import ALARM, tint
from .beside import open_predict_beside
from .domains_box import DomainsBox
from .figures import Figures
from .genes_box import GenesBox, ScatterBox
from .measured_box import MeasuredBox
from .report_box import ReportBox
from .rivals_box import RivalsBox
from .sets_box import SetsBox
from .shown_box import ShownBox
from .state import quality_of
from .summary_box import SummaryBox
from .value_maps import ValueMaps


class QualityWidget(QWidget):
    """DKAN: quality control. Shares the viewer's session with the Predict panel."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(napari_viewer)
        self.quality = quality_of(self.session)
        session, quality, links = self.session, self.quality, Links()
        self.figures = Figures(session, quality, links)
        self.maps = ValueMaps(quality, links)
        self.measured_box = MeasuredBox(session, quality, links, self.maps)
        self.summary_box = SummaryBox(session, quality, links, self.figures)
        self.genes_box = GenesBox(session, quality, links, self.figures)
        self.scatter_box = ScatterBox(session, quality, links)
        self.sets_box = SetsBox(session, quality, links, self.maps)
        self.domains_box = DomainsBox(session, quality, links, self.maps)
        self.rivals_box = RivalsBox(session, quality, links, self.maps)
        self.shown_box = ShownBox(self.maps, links)
        self.report_box = ReportBox(session, quality, links)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.folds: dict[str, QCollapsible] = {}
        self._measured_only: list[QWidget] = []
        self._build()
        links.join(self._say, session.message_changed)
        links.join(self._reveal, quality.comparison_changed)
        self.shut_down = once(
            links.cut,
            self._answer(),
            self.figures.close,
            self.sets_box.close_lane,
            self.domains_box.close_lane,
            self.rivals_box.close_lane,
            self.report_box.close_lane,
            self.summary_box.outline.remove,
            self.maps.remove,
        )
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._say()
        self._reveal()
        open_predict_beside(self, napari_viewer)

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        column.addWidget(heading_of("Measured", "quality"))
        column.addWidget(self.measured_box)
        column.addWidget(self.message)
        shown: dict[str, QWidget] = {
            "Summary": self.summary_box,
            "Genes": self.genes_box,
            "This gene": self.scatter_box,
        }
        for title, box in shown.items():
            heading = heading_of(title)
            self._measured_only += [heading, box]
            column.addWidget(heading)
            column.addWidget(box)
        seldom: dict[str, QWidget] = {
            "Gene sets": self.sets_box,
            "Domains": self.domains_box,
            "Two checkpoints": self.rivals_box,
        }
        for title, box in seldom.items():
            self.folds[title] = folded(title, box)
            column.addWidget(self.folds[title])
        column.addWidget(self.shown_box)
        column.addWidget(self.report_box)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(Column(content))

    def _answer(self) -> Callable[[], None]:
        return answer(
            self.session.viewer,
            cancel=self.quality.cancel,
            load_section=self.measured_box.ask,
            report=self.report_box.write.click,
            help=lambda: show_in_front("quality", self),
        )

    def _say(self) -> None:
        session = self.session
        self.message.setText(session.message)
        self.message.setVisible(bool(session.message))
        tint(self.message, ALARM if session.alarming else None)

    def _reveal(self) -> None:
        """Without a comparison there is nothing to sum up yet."""
        for widget in self._measured_only:
            widget.setVisible(self.quality.comparison is not None)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
