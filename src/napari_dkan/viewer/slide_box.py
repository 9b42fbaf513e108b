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
from .actions import set_tooltip
from .combo import make_shrinkable
from .links import SignalConnections
from .pixel_sizes import USER_ORIGINS, format_pixel_size
from .ruler import Ruler
from .ruler_box import RulerBox
from .session import ViewerSession

DEFAULT_MPP = 0.5  # a 20x scan, offered where nothing is known


class SlideBox(QWidget):
    """Which slide is meant, what a pixel of it measures and where that number is from."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self.slide_combo = QComboBox()
        make_shrinkable(self.slide_combo)
        self.slide_combo.setToolTip("Slides open in this window; drag one in to add it.")
        self.pixel_size_label = QLabel()
        self.pixel_size_label.setWordWrap(True)
        self.change_button = QPushButton("change")
        self.change_button.setFlat(True)
        self.ruler_button = QPushButton("ruler")
        self.ruler_button.setFlat(True)
        self.ruler_button.setCheckable(True)
        set_tooltip(
            self.ruler_button,
            "Draw a line on the slide and type its length: sets or checks the pixel size ({key}).",
            "ruler",
            connections,
        )
        self.ruler = Ruler(session, connections)
        self.ruler_box = RulerBox(session, connections, self.ruler)
        self.pixel_size_field = QDoubleSpinBox()
        self.pixel_size_field.setDecimals(4)
        self.pixel_size_field.setRange(0.0, 1000.0)
        self.pixel_size_field.setSingleStep(0.05)
        self.pixel_size_field.setSuffix(" um/px")
        self.pixel_size_field.setToolTip("0.25 for a 40x scan, 0.5 for 20x, 1 for 10x.")
        self.apply_button = QPushButton("Set pixel size")
        self.reset_button = QPushButton("Reset")
        self._entry_row = QWidget()

        ask = QHBoxLayout(self._entry_row)
        ask.setContentsMargins(0, 0, 0, 0)
        ask.addWidget(self.pixel_size_field, 1)
        ask.addWidget(self.apply_button)
        ask.addWidget(self.reset_button)
        line = QHBoxLayout()
        line.addWidget(self.pixel_size_label, 1)
        line.addWidget(self.ruler_button, 0, Qt.AlignmentFlag.AlignRight)
        line.addWidget(self.change_button, 0, Qt.AlignmentFlag.AlignRight)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slide_combo)
        layout.addLayout(line)
        layout.addWidget(self._entry_row)
        layout.addWidget(self.ruler_box)

        self.slide_combo.activated.connect(self._on_slide_chosen)
        self.change_button.clicked.connect(self._toggle_entry)
        self.apply_button.clicked.connect(self._apply_pixel_size)
        self.reset_button.clicked.connect(session.viewer_slides.reset_mpp)
        self.ruler_button.clicked.connect(self.toggle_ruler)
        connections.connect(self.refresh, session.slides_changed, session.slide_changed)
        connections.connect(self._refresh_ruler_button, self.ruler.changed)
        self.refresh()

    def toggle_ruler(self) -> None:
        """Begin with the ruler, or put it away."""
        if self.ruler.busy:
            self.ruler.cancel()
        else:
            self.ruler.start()
        self._refresh_ruler_button()

    def _refresh_ruler_button(self) -> None:
        self.ruler_button.setChecked(self.ruler.busy)

    def refresh(self) -> None:
        session, slide = self._session, self._session.slide
        self.slide_combo.clear()
        for each in session.slides:
            self.slide_combo.addItem(each.layer.name)
        self.slide_combo.setEnabled(bool(session.slides))
        self.change_button.setVisible(slide is not None and slide.pixel_size is not None)
        self.ruler_button.setVisible(slide is not None)
        self._entry_row.setVisible(slide is not None and slide.pixel_size is None)
        if slide is None:
            self.slide_combo.addItem("no slide yet")
            self.pixel_size_label.setText("Drag an H&E slide onto the window, or File > Open Sample.")
            return
        self.slide_combo.setCurrentIndex(session.slides.index(slide))
        size = slide.pixel_size
        if size is None:
            note = slide.slide.pixel_size_note or "The file does not state its pixel size."
            self.pixel_size_label.setText(
                f"{note} Enter it once, or measure it with the ruler; it is remembered. "
                "(40x is about 0.25)"
            )
            self.pixel_size_field.setValue(DEFAULT_MPP)
        else:
            self.pixel_size_label.setText(format_pixel_size(size, slide.native_pixel_size))
            self.pixel_size_field.setValue(size.mpp)
        self.reset_button.setVisible(size is not None and size.origin in USER_ORIGINS)
        stated = "as it was: unknown" if slide.native_pixel_size is None else format_pixel_size(slide.native_pixel_size, None)
        self.reset_button.setToolTip(f"Forget it, and go back to {stated}.")

    def _on_slide_chosen(self, index: int) -> None:
        if index < len(self._session.slides):
            self._session.choose_slide(self._session.slides[index])

    def _toggle_entry(self) -> None:
        self._entry_row.setVisible(not self._entry_row.isVisible())

    def _apply_pixel_size(self) -> None:
        try:
            self._session.set_mpp(self.pixel_size_field.value())
        except DkanError as error:
            self._session.show_message(str(error), warning=True)
        else:
            self._session.show_message("")
