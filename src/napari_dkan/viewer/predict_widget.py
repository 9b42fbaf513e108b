"""The panel: slide, model, where, gene, spot, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from .advanced_box import advanced_box
from .banner import Banner
from .cache_box import CacheBox
from .clicks import Clicks
from .column import Column, heading_of
from .display import Display
from .gene_box import GeneBox
from .genes import Genes
from .lens import Lens
from .lens_box import LensBox
from .links import Links, once
from .looking import Looking
from .maps import Maps
from .model_box import ModelBox
from .ready import Ready
from .session import Session, session_of
from .slide_box import SlideBox
from .spot_box import SpotBox
from .timing_box import TimingBox
from .trust import Trust
from .where_box import WhereBox
from .why_box import WhyBox

KEYS = {"Left": -1, "Up": -1, "Right": 1, "Down": 1}


class PredictWidget(QWidget):
    """DKAN: predict. One per viewer; everything it shows lives in the viewer's session."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(napari_viewer)
        session, links = self.session, Links()
        looking = Looking(session, links)
        self.maps, self.ready = Maps(session, links, looking), Ready(session, links, looking)
        self.clicks, self.display = Clicks(session), Display(session, links)
        self.genes, self.trust = Genes(session, links), Trust(session, links)
        self.slide_box = SlideBox(session, links)
        self.banner = Banner(session, links, self.ready)
        self.model_box = ModelBox(session, links)
        self.where_box = WhereBox(session, links, self.maps, self.ready)
        self.gene_box = GeneBox(session, links, self.display, self.trust)
        self.lens = Lens(session, links, self.maps, self.display)
        self.lens_box = LensBox(self.lens, links)
        self.spot_box = SpotBox(session, links)
        self.why_box = WhyBox(session, links)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.advanced = advanced_box(session, links)
        self.cache_box = CacheBox(session, links)
        self.timing_box = TimingBox(session)
        self._build()
        links.join(self._say, session.message_changed)
        links.join(self._offer_cpu, self.maps.memory_out)
        links.join(lambda: self.genes.pause(self.maps.busy), self.maps.changed)
        for key, step in KEYS.items():
            self.session.viewer.bind_key(key, _stepper(self.session, step), overwrite=True)
        self.shut_down = once(
            links.cut,
            self.where_box.stop,
            self.why_box.explainer.close,
            self.lens.close,
            self.maps.close,
            self.genes.close,
            self.cache_box.close_lane,
            self.timing_box.stop,
            self.clicks.close,
            self.banner.close_lane,
            self.ready.close,
            self.model_box.close_lane,
            self.trust.close,
            self.display.close,
        )
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._say()
        self.ready.start()

    def _build(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        boxes: dict[str, QWidget] = {
            "Slide": self.slide_box,
            "Model": self.model_box,
            "Where": self.where_box,
            "": self.message,
            "Gene": self.gene_box,
            "This spot": self.spot_box,
        }
        for title, box in boxes.items():
            if title:
                column.addWidget(heading_of(title))
            column.addWidget(box)
            if box is self.slide_box:
                column.addWidget(self.banner)
            if box is self.gene_box:
                column.addWidget(self.lens_box)
            if box is self.spot_box:
                column.addWidget(self.why_box)
        folded = QCollapsible("Advanced")
        for box in (self.advanced.native, self.cache_box, self.timing_box):
            folded.addWidget(box)
        column.addWidget(folded)
        column.addStretch(1)
        area = Column(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)

    def _say(self) -> None:
        session = self.session
        self.message.setText(session.message)
        self.message.setVisible(bool(session.message))
        self.message.setStyleSheet("color: #ff8a65;" if session.alarming else "")

    def _offer_cpu(self) -> None:
        """The GPU is too small: choose the CPU, so that Predict goes on from there."""
        self.advanced["device"].value = "cpu"
        self.session.say(
            f"{self.session.message} The CPU is chosen now; press Predict to go on.", alarming=True
        )

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)


def _stepper(session: Session, step: int) -> Callable[[object], None]:
    def step_gene(viewer: object) -> None:
        session.step_gene(step)

    return step_gene
