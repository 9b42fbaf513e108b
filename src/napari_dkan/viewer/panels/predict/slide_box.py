"""The slide and its pixel size, typed in or measured with the ruler."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from ....slide import PixelSize
from ....slide.pixel_size import MANUAL_ORIGIN
from ...session.pixel_size_sources import USER_ORIGINS, format_pixel_size
from ...session.shortcut_actions import set_tooltip
from ...session.slide_images import (
    describe_slide,
    format_image,
    has_two_frames,
    is_whole_glass,
    open_image_index,
    scan_index,
    show_file_image,
    show_frame,
)
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession
from ...tools.ruler import Ruler
from ...widgets.qt_utils import fill_column, make_row, make_shrinkable, make_text_label
from ...widgets.signal_connections import SignalConnections

LENGTH_UNITS = {"um": 1.0, "mm": 1000.0}


class RulerBox(QWidget):
    """Length and buttons of the ruler; visible while it is in use."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, ruler: Ruler
    ) -> None:
        super().__init__()
        self._session, self._ruler = session, ruler
        self.instruction_label = QLabel()
        self.instruction_label.setWordWrap(True)
        self.length_field = QDoubleSpinBox()
        self.length_field.setDecimals(3)
        self.length_field.setRange(0.0, 1_000_000.0)
        self.length_field.setToolTip("How long the line is in truth.")
        self.unit_combo = QComboBox()
        self.unit_combo.addItems(list(LENGTH_UNITS))
        self.apply_button = QPushButton("Set")
        self.apply_button.setToolTip("Take the pixel size from the line, and remember it.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Take the line away and leave the pixel size as it is (Esc).")
        row = QHBoxLayout()
        row.addWidget(self.length_field, 1)
        for widget in (self.unit_combo, self.apply_button, self.cancel_button):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.instruction_label)
        layout.addLayout(row)
        self.apply_button.clicked.connect(self._apply_length)
        self.cancel_button.clicked.connect(ruler.cancel)
        line = self.length_field.lineEdit()
        if line is not None:
            line.returnPressed.connect(self._apply_length)
        connections.connect(self.refresh, ruler.changed)
        self.refresh()

    def refresh(self) -> None:
        """Follow the ruler."""
        ruler = self._ruler
        self.setVisible(ruler.busy)
        if not ruler.busy:
            self.length_field.setValue(0)
            return
        drawn = ruler.length_px > 0
        self.apply_button.setEnabled(drawn)
        self.instruction_label.setText(
            f"The line is {ruler.length_px:,.0f} px{self._format_current_length()}. "
            "Type its true length; its ends can be moved."
            if drawn
            else "Draw a line over something whose length you know: a scale bar, the field of a "
            "spot array, the width of the section. The longer, the better."
        )

    def _format_current_length(self) -> str:
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return ""
        return f", {self._ruler.format_length()} at {slide.mpp:.4g} um/px"

    def _apply_length(self) -> None:
        with self._session.message.report_errors():
            self._ruler.set_length(
                self.length_field.value() * LENGTH_UNITS[self.unit_combo.currentText()]
            )

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self._ruler.cancel()
        else:
            super().keyPressEvent(event)


FRAMES = {"scan area, as in QuPath": False, "whole glass": True}  # text -> whole_glass


class FileImageBox(QWidget):
    """Choice of the image in a file with several, and of the frame on a slide with a scan area."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self.image_combo, self.frame_combo = QComboBox(), QComboBox()
        for combo in (self.image_combo, self.frame_combo):
            make_shrinkable(combo)
        self.image_combo.setToolTip("The images in this file; another one opens beside this one.")
        self.frame_combo.setToolTip(
            "From which corner spots and predictions count. Regions of QuPath fit in both."
        )
        self.frame_combo.addItems(list(FRAMES))
        self._image_row, self._frame_row = QWidget(), QWidget()
        fill_column(self._image_row, make_row(QLabel("Image"), (self.image_combo, 1)))
        fill_column(self._frame_row, make_row(QLabel("Frame"), (self.frame_combo, 1)))
        fill_column(self, self._image_row, self._frame_row)
        self.image_combo.activated.connect(self._show_image)
        self.frame_combo.activated.connect(self._show_frame)
        connections.connect(self.refresh, session.slides_changed, session.slide_changed)
        self.refresh()

    def refresh(self) -> None:
        """Follow the current slide."""
        slide = None if self._session.slide is None else self._session.slide.slide
        images = () if slide is None else slide.images
        self.image_combo.clear()
        if slide is not None and len(images) > 1:
            for index, image in enumerate(images):
                self.image_combo.addItem(format_image(image, index == scan_index(slide)))
            self.image_combo.setCurrentIndex(open_image_index(slide))
        has_frames = slide is not None and has_two_frames(slide)
        if slide is not None:
            self.frame_combo.setCurrentIndex(int(is_whole_glass(slide)))
        self._image_row.setVisible(len(images) > 1)
        self._frame_row.setVisible(has_frames)
        self.setVisible(len(images) > 1 or has_frames)

    def _show_image(self, index: int) -> None:
        session = self._session
        session.message.clear()
        with session.message.report_errors():
            show_file_image(session.viewer, session.viewer_slides, index)
        self.refresh()

    def _show_frame(self, index: int) -> None:
        session = self._session
        session.message.clear()
        with session.message.report_errors():
            show_frame(session.viewer, session.viewer_slides, list(FRAMES.values())[index])
        self.refresh()


DEFAULT_MPP = 0.5  # of a 20x scan; suggested where the pixel size is unknown
MAX_VISIBLE_SLIDES = 4  # of the list of open slides; further ones are reached by scrolling


class SlideBox(QWidget):
    """The current slide, its pixel size and the origin of the pixel size.

    Attributes
    ----------
    slide_list : QListWidget
        The open slides where there are several; the owner places it where it is always in sight.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self._doubted_mpp: float | None = None  # unlikely; a second press accepts it
        self._suggestion: tuple[ViewerSlide | None, float] = (None, 0.0)
        self.slide_list = QListWidget()
        self.slide_list.setAccessibleName("Open slides")
        self.slide_list.setToolTip("The open slides; drag another one onto the window to add it.")
        self.slide_list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.file_image_box = FileImageBox(session, connections)
        self.account_label = make_text_label(selectable=True)
        self.account_label.setToolTip("What was read of the file of this slide")
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

        entry = QHBoxLayout(self._entry_row)
        entry.setContentsMargins(0, 0, 0, 0)
        entry.addWidget(self.pixel_size_field, 1)
        entry.addWidget(self.apply_button)
        entry.addWidget(self.reset_button)
        line = QHBoxLayout()
        line.addWidget(self.pixel_size_label, 1)
        line.addWidget(self.ruler_button, 0, Qt.AlignmentFlag.AlignRight)
        line.addWidget(self.change_button, 0, Qt.AlignmentFlag.AlignRight)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.file_image_box)
        layout.addWidget(self.account_label)
        layout.addLayout(line)
        layout.addWidget(self._entry_row)
        layout.addWidget(self.ruler_box)

        self.slide_list.currentRowChanged.connect(self._on_slide_chosen)
        # Also the current one: the view goes there.
        self.slide_list.clicked.connect(lambda index: self._on_slide_chosen(index.row()))
        self.change_button.clicked.connect(self._toggle_entry)
        self.apply_button.clicked.connect(self._apply_pixel_size)
        self.reset_button.clicked.connect(session.viewer_slides.reset_mpp)
        self.ruler_button.clicked.connect(self.toggle_ruler)
        connections.connect(
            self.refresh, session.slides_changed, session.slide_changed, session.checkpoint_changed
        )
        connections.connect(self._on_model_loaded, session.checkpoint_changed)
        connections.connect(self._refresh_ruler_button, self.ruler.changed)
        self.refresh()

    def toggle_ruler(self) -> None:
        """Start or cancel the ruler."""
        if self.ruler.busy:
            self.ruler.cancel()
        else:
            self.ruler.start()
        self._refresh_ruler_button()

    def _refresh_ruler_button(self) -> None:
        self.ruler_button.setChecked(self.ruler.busy)

    def refresh(self) -> None:
        """Follow the open slides and the pixel size of the current one."""
        slide = self._session.slide
        self._refresh_list()
        self.change_button.setVisible(slide is not None and slide.pixel_size is not None)
        self.ruler_button.setVisible(slide is not None)
        self._entry_row.setVisible(slide is not None and slide.pixel_size is None)
        self.account_label.setVisible(slide is not None)
        self.account_label.setText("" if slide is None else describe_slide(slide.slide))
        if slide is None:
            self.pixel_size_label.setText(
                "Drag an H&E slide onto the window, or File > Open Sample."
            )
            return
        size = slide.pixel_size
        if size is None:
            note = slide.slide.pixel_size_note or "The file does not state its pixel size."
            trained = self._training_mpp()
            hint = "40x is about 0.25"
            if trained is not None:
                hint = f"{trained:.3g} is that of the model's training; {hint}"
            self.pixel_size_label.setText(f"{note} Enter it, or use the ruler. ({hint})")
            self._suggest_mpp(slide, DEFAULT_MPP if trained is None else trained)
        else:
            self.pixel_size_label.setText(format_pixel_size(size, slide.native_pixel_size))
            self.pixel_size_field.setValue(size.mpp)
        self.reset_button.setVisible(size is not None and size.origin in USER_ORIGINS)
        native = (
            "as it was: unknown"
            if slide.native_pixel_size is None
            else format_pixel_size(slide.native_pixel_size, None)
        )
        self.reset_button.setToolTip(f"Forget it, and go back to {native}.")

    def _suggest_mpp(self, slide: ViewerSlide, mpp: float) -> None:
        """Offer a pixel size; what the user has typed for this slide stays."""
        known_slide, known = self._suggestion
        if slide is known_slide and self.pixel_size_field.value() != known:
            return
        self.pixel_size_field.setValue(mpp)
        self._suggestion = slide, self.pixel_size_field.value()  # rounded

    def _on_model_loaded(self) -> None:
        """Drop the question that was asked without the model."""
        if self._doubted_mpp is not None and self._session.message.is_warning:
            self._session.message.clear()
        self._doubted_mpp = None

    @property
    def waits_for_user(self) -> bool:
        """Whether the slide or its pixel size is missing, or the ruler is in use."""
        slide = self._session.slide
        return slide is None or slide.pixel_size is None or self.ruler.busy

    def summarize(self) -> str:
        """Summarize the slide in a line, e.g. ``C3.svs, 0.5 um/px``."""
        slide = self._session.slide
        if slide is None:
            return "none yet"
        size = slide.pixel_size
        return slide.layer.name if size is None else f"{slide.layer.name}, {size.mpp:.3g} um/px"

    def _refresh_list(self) -> None:
        session, slides = self._session, self.slide_list
        names = [each.layer.name for each in session.slides]
        with signals_blocked(slides):
            # It is not filled anew while one of its rows is being clicked.
            if names != [slides.item(i).text() for i in range(slides.count())]:
                slides.clear()
                slides.addItems(names)
                rows = min(len(names), MAX_VISIBLE_SLIDES)
                slides.setFixedHeight(rows * slides.sizeHintForRow(0) + 2 * slides.frameWidth())
            if session.slide is not None:
                slides.setCurrentRow(session.slides.index(session.slide))
        slides.setVisible(len(names) > 1)

    def _on_slide_chosen(self, index: int) -> None:
        if 0 <= index < len(self._session.slides):
            self._session.viewer_slides.set_current(self._session.slides[index])

    def show_entry(self) -> None:
        """Show where a pixel size is typed."""
        self._entry_row.show()

    def _toggle_entry(self) -> None:
        self._entry_row.setVisible(not self._entry_row.isVisible())

    def _apply_pixel_size(self) -> None:
        message, mpp = self._session.message, self.pixel_size_field.value()
        message.clear()
        with message.report_errors():
            doubt = self._doubt_pixel_size(mpp)
            if not doubt or self._doubted_mpp == mpp:
                self._session.viewer_slides.set_mpp(mpp)
                return
            self._doubted_mpp = mpp
            again = f"Press {self.apply_button.text()} again to use it all the same."
            message.show(f"{doubt} {again}", warning=True)

    def _training_mpp(self) -> float | None:
        """Median pixel size of the checkpoint's training slides, if it knows them."""
        checkpoint = self._session.checkpoint
        if checkpoint is None or checkpoint.reference is None or not checkpoint.reference.slide_mpp:
            return None
        return float(np.median(checkpoint.reference.slide_mpp))

    def _doubt_pixel_size(self, mpp: float) -> str:
        """Say why a pixel size is unlikely for this slide and checkpoint; "" if it is not."""
        from ....quality.slide_checks import check_pixel_size

        slide, checkpoint = self._session.slide, self._session.checkpoint
        if slide is None or not mpp > 0:
            return ""
        if checkpoint is None:
            return "The model is not loaded yet; it may know the pixel size."
        size = PixelSize(mpp, MANUAL_ORIGIN)
        return check_pixel_size(checkpoint, size, slide.slide.width, slide.slide.height)
