"""The slide and its pixel size."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import DkanError
from .combo import narrow
from .links import Links
from .session import Session

GUESS = 0.5  # a 20x scan, offered where nothing is known


class SlideBox(QWidget):
    """Which slide is meant, what a pixel of it measures and where that number is from."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self.choice = QComboBox()
        narrow(self.choice)
        self.choice.setToolTip("Slides open in this window; drag one in to add it.")
        self.scale = QLabel()
        self.scale.setWordWrap(True)
        self.change = QPushButton("change")
        self.change.setFlat(True)
        self.entry = QDoubleSpinBox()
        self.entry.setDecimals(4)
        self.entry.setRange(0.0, 1000.0)
        self.entry.setSingleStep(0.05)
        self.entry.setSuffix(" um/px")
        self.entry.setToolTip("0.25 for a 40x scan, 0.5 for 20x, 1 for 10x.")
        self.apply = QPushButton("Set pixel size")
        self._asking = QWidget()

        ask = QHBoxLayout(self._asking)
        ask.setContentsMargins(0, 0, 0, 0)
        ask.addWidget(self.entry, 1)
        ask.addWidget(self.apply)
        line = QHBoxLayout()
        line.addWidget(self.scale, 1)
        line.addWidget(self.change, 0, Qt.AlignmentFlag.AlignRight)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice)
        layout.addLayout(line)
        layout.addWidget(self._asking)

        self.choice.activated.connect(self._chosen)
        self.change.clicked.connect(self._ask)
        self.apply.clicked.connect(self._apply)
        links.join(self.refresh, session.slides_changed, session.slide_changed)
        self.refresh()

    def refresh(self) -> None:
        session, slide = self._session, self._session.slide
        self.choice.clear()
        for each in session.slides:
            self.choice.addItem(each.layer.name)
        self.choice.setEnabled(bool(session.slides))
        self.change.setVisible(slide is not None and slide.pixel_size is not None)
        self._asking.setVisible(slide is not None and slide.pixel_size is None)
        if slide is None:
            self.choice.addItem("no slide yet")
            self.scale.setText("Drag an H&E slide onto the window, or File > Open Sample.")
            return
        self.choice.setCurrentIndex(session.slides.index(slide))
        size = slide.pixel_size
        if size is None:
            note = slide.slide.pixel_size_note or "The file does not state its pixel size."
            self.scale.setText(f"{note} Enter it once; it is remembered. (40x is about 0.25)")
            self.entry.setValue(GUESS)
        else:
            self.scale.setText(f"{size.mpp:.4g} um/px, {_from(size.origin)}")
            self.entry.setValue(size.mpp)

    def _chosen(self, index: int) -> None:
        if index < len(self._session.slides):
            self._session.choose_slide(self._session.slides[index])

    def _ask(self) -> None:
        self._asking.setVisible(not self._asking.isVisible())

    def _apply(self) -> None:
        try:
            self._session.set_mpp(self.entry.value())
        except DkanError as error:
            self._session.say(str(error), alarming=True)
        else:
            self._session.say("")


def _from(origin: str) -> str:
    return origin if origin.startswith("entered") else f"from the {origin}"
