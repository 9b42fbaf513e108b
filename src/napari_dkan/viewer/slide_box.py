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
from .actions import tip
from .combo import narrow
from .links import Links
from .pixel_sizes import BY_PERSON, told
from .ruler import Ruler
from .ruler_box import RulerBox
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
        self.measure = QPushButton("ruler")
        self.measure.setFlat(True)
        self.measure.setCheckable(True)
        tip(
            self.measure,
            "Draw a line on the slide and type its length: sets or checks the pixel size ({key}).",
            "ruler",
            links,
        )
        self.ruler = Ruler(session, links)
        self.ruler_box = RulerBox(session, links, self.ruler)
        self.entry = QDoubleSpinBox()
        self.entry.setDecimals(4)
        self.entry.setRange(0.0, 1000.0)
        self.entry.setSingleStep(0.05)
        self.entry.setSuffix(" um/px")
        self.entry.setToolTip("0.25 for a 40x scan, 0.5 for 20x, 1 for 10x.")
        self.apply = QPushButton("Set pixel size")
        self.reset = QPushButton("Reset")
        self._asking = QWidget()

        ask = QHBoxLayout(self._asking)
        ask.setContentsMargins(0, 0, 0, 0)
        ask.addWidget(self.entry, 1)
        ask.addWidget(self.apply)
        ask.addWidget(self.reset)
        line = QHBoxLayout()
        line.addWidget(self.scale, 1)
        line.addWidget(self.measure, 0, Qt.AlignmentFlag.AlignRight)
        line.addWidget(self.change, 0, Qt.AlignmentFlag.AlignRight)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice)
        layout.addLayout(line)
        layout.addWidget(self._asking)
        layout.addWidget(self.ruler_box)

        self.choice.activated.connect(self._chosen)
        self.change.clicked.connect(self._ask)
        self.apply.clicked.connect(self._apply)
        self.reset.clicked.connect(session.opened.reset_mpp)
        self.measure.clicked.connect(self.toggle_ruler)
        links.join(self.refresh, session.slides_changed, session.slide_changed)
        links.join(self._measuring, self.ruler.changed)
        self.refresh()

    def toggle_ruler(self) -> None:
        """Begin with the ruler, or put it away."""
        if self.ruler.busy:
            self.ruler.cancel()
        else:
            self.ruler.start()
        self._measuring()

    def _measuring(self) -> None:
        self.measure.setChecked(self.ruler.busy)

    def refresh(self) -> None:
        session, slide = self._session, self._session.slide
        self.choice.clear()
        for each in session.slides:
            self.choice.addItem(each.layer.name)
        self.choice.setEnabled(bool(session.slides))
        self.change.setVisible(slide is not None and slide.pixel_size is not None)
        self.measure.setVisible(slide is not None)
        self._asking.setVisible(slide is not None and slide.pixel_size is None)
        if slide is None:
            self.choice.addItem("no slide yet")
            self.scale.setText("Drag an H&E slide onto the window, or File > Open Sample.")
            return
        self.choice.setCurrentIndex(session.slides.index(slide))
        size = slide.pixel_size
        if size is None:
            note = slide.slide.pixel_size_note or "The file does not state its pixel size."
            self.scale.setText(
                f"{note} Enter it once, or measure it with the ruler; it is remembered. "
                "(40x is about 0.25)"
            )
            self.entry.setValue(GUESS)
        else:
            self.scale.setText(told(size, slide.stated))
            self.entry.setValue(size.mpp)
        self.reset.setVisible(size is not None and size.origin in BY_PERSON)
        stated = "as it was: unknown" if slide.stated is None else told(slide.stated, None)
        self.reset.setToolTip(f"Forget it, and go back to {stated}.")

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
