"""The panel: slide, model, where, gene, spot, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit
from napari.viewer import Viewer
from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from ..inference.device import available_devices, device_label
from .clicks import Clicks
from .column import Column
from .display import Display
from .gene_box import GeneBox
from .links import Links
from .maps import Maps
from .model_box import ModelBox
from .ready import Ready
from .session import Session, session_of
from .slide_box import SlideBox
from .spot_box import SpotBox
from .where_box import WhereBox

KEYS = {"Left": -1, "Up": -1, "Right": 1, "Down": 1}


class PredictWidget(QWidget):
    """DKAN: predict. One per viewer; everything it shows lives in the viewer's session."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: Session = session_of(napari_viewer)
        session, links = self.session, Links()
        self.maps, self.ready = Maps(session, links), Ready(session, links)
        self.clicks, self.display = Clicks(session), Display(session, links)
        self.slide_box = SlideBox(session, links)
        self.model_box = ModelBox(session, links)
        self.where_box = WhereBox(session, links, self.maps, self.ready)
        self.gene_box = GeneBox(session, links, self.display)
        self.spot_box = SpotBox(session, links)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.advanced = _advanced(session, links)
        self._build()
        links.join(self._say, session.message_changed)
        links.join(self._offer_cpu, self.maps.memory_out)
        for key, step in KEYS.items():
            self.session.viewer.bind_key(key, _stepper(self.session, step), overwrite=True)
        self.shut_down = _once(
            links.cut,
            self.where_box.stop,
            self.maps.close,
            self.clicks.close,
            self.ready.close,
            self.model_box.close_lane,
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
                column.addWidget(_heading(title))
            column.addWidget(box)
        folded = QCollapsible("Advanced")
        folded.addWidget(self.advanced.native)
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


def _advanced(session: Session, links: Links) -> Container:
    """Device, pitch and background, folded away; the defaults are right for most."""
    device = ComboBox(name="device", label="Device", choices=[("best", "auto")], value="auto")
    pitch = ComboBox(
        name="pitch",
        label="Grid",
        choices=[("as trained", False), ("dense, tiles touch", True)],
        value=session.settings.dense,
        tooltip="Dense maps show more detail; the network was trained at the spots' distance.",
    )
    tissue = CheckBox(name="tissue_only", text="Tissue only", value=session.settings.tissue_only)
    unproven = CheckBox(
        name="unproven",
        text="Unproven genes by description",
        value=session.settings.unproven,
        tooltip="Also where the card does not show that a gene's own text beats another's.",
    )
    weights = FileEdit(
        name="encoder_weights",
        label="Encoder",
        mode=FileDialogMode.EXISTING_FILE,
        nullable=True,
        value=None,
        tooltip="Weights of the tile encoder, where the checkpoint does not bring them along.",
    )
    weights.changed.connect(lambda path: session.change(encoder_weights=path))
    device.changed.connect(lambda value: session.change(device=value))
    pitch.changed.connect(lambda value: session.change(dense=value))
    tissue.changed.connect(lambda value: session.change(tissue_only=value))
    unproven.changed.connect(lambda value: session.change(unproven=value))

    def list_devices() -> None:
        """Once a checkpoint is there torch is loaded, and asking it costs nothing."""
        chosen, devices = device.value, available_devices()
        best = (f"best ({device_label(devices[0])})", "auto")
        device.choices = [best, *((device_label(d), d) for d in devices)]
        device.value = chosen

    links.join(list_devices, session.checkpoint_changed)
    return Container(widgets=[device, pitch, tissue, unproven, weights])


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label


def _once(*actions: Callable[[], None]) -> Callable[[], None]:
    """All of the actions on the first call, nothing later: a panel can go in several ways."""
    left = list(actions)

    def act() -> None:
        while left:
            left.pop(0)()

    return act


def _stepper(session: Session, step: int) -> Callable[[object], None]:
    def step_gene(viewer: object) -> None:
        session.step_gene(step)

    return step_gene
