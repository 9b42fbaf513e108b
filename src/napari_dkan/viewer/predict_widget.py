"""The panel: slide, model, where, gene, spot, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from . import preferences
from .actions import answer
from .advanced_box import advanced_box
from .arrows import Arrows
from .banner import Banner
from .cache_box import CacheBox
from .clicks import Clicks
from .column import Column, heading_of
from .display import Display
from .folded import folded
from .gene_box import GeneBox
from .genes import Genes
from .help import show_in_front
from .lens import Lens
from .lens_box import LensBox
from .links import Links, once
from .looking import Looking
from .maps import Maps
from .model_box import ModelBox
from .ready import Ready
from .results.box import ResultsBox
from .results.state import results_of
from .session import Session, session_of
from .slide_box import SlideBox
from .spot_box import SpotBox
from .timing_box import TimingBox
from .tones import ALARM, tint
from .trust import Trust
from .where_box import MODES, WhereBox
from .why_box import WhyBox

HELP = {
    "Slide": "slide",
    "Model": "model",
    "Where": "where",
    "Gene": "gene",
    "This spot": "spot",
    "Results": "results",
}


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
        self.results = results_of(session)
        self.results.regions_layer = self.where_box.regions_layer
        self.results_box = ResultsBox(self.results, links)
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
        links.join(self.model_box.close_lane, self.results.taking_checkpoint)
        preferences.follow(session, links)
        self.arrows = Arrows(session, links)
        self.shut_down = once(
            links.cut,
            self.arrows.close,
            self._answer(),
            self.slide_box.ruler.close,
            self.where_box.stop,
            self.why_box.explainer.close,
            self.results_box.forget_keys,
            self.results.close,
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
            "Results": self.results_box,
        }
        for title, box in boxes.items():
            if title:
                column.addWidget(heading_of(title, HELP.get(title, "")))
            column.addWidget(box)
            if box is self.slide_box:
                column.addWidget(self.banner)
            if box is self.gene_box:
                column.addWidget(self.lens_box)
            if box is self.spot_box:
                column.addWidget(self.why_box)
        column.addWidget(folded("Advanced", self.advanced.native, self.cache_box, self.timing_box))
        column.addStretch(1)
        area = Column(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)

    def _answer(self) -> Callable[[], None]:
        """What the keys do; those of the lens and of why are theirs."""
        session, where, gene = self.session, self.where_box, self.gene_box
        modes = {name: where.buttons[mode].click for name, mode in MODES.items()}
        return answer(
            session.viewer,
            predict=where.start,
            cancel=where.cancel.click,
            draw_region=where.draw.click,
            ruler=self.slide_box.toggle_ruler,
            next_gene=lambda: session.step_gene(1),
            previous_gene=lambda: session.step_gene(-1),
            find_gene=gene.find_gene,
            pin_gene=gene.pin.click,
            limits=gene.fix_limits,
            hatch=gene.hatch.toggle,
            help=lambda: show_in_front("where", self),
            **modes,
        )

    def _say(self) -> None:
        session = self.session
        self.message.setText(session.message)
        self.message.setVisible(bool(session.message))
        tint(self.message, ALARM if session.alarming else None)

    def _offer_cpu(self) -> None:
        """The GPU is too small: choose the CPU, so that Predict goes on from there."""
        self.advanced["device"].value = "cpu"
        self.session.say(
            f"{self.session.message} The CPU is chosen now; press Predict to go on.", alarming=True
        )

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)
