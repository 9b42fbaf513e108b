"""A section of a panel that folds to its header."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtCore import QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QKeyEvent, QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from .scroll_column import find_column


class _HeaderButton(QToolButton):
    """Pressed by Enter as well as by Space."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        else:
            super().keyPressEvent(event)


class SummaryLabel(QLabel):
    """A name and, behind its last comma, a figure; only the name is elided where room is short."""

    def __init__(self) -> None:
        super().__init__()
        self._summary = ""

    def set_summary(self, text: str) -> None:
        """Set the whole text, which is the tooltip too."""
        self._summary = text
        self.setToolTip(text)
        self._fit()

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        name, comma, figure = self._summary.rpartition(", ")
        if not comma:
            name, figure = figure, ""
        metrics = self.fontMetrics()
        margins = self.sizeHint().width() - metrics.horizontalAdvance(self.text())  # of the theme
        room = self.width() - margins - metrics.horizontalAdvance(comma + figure)
        mode = Qt.TextElideMode.ElideMiddle
        self.setText(metrics.elidedText(name, mode, max(room, 0)) + comma + figure)


class FoldSection(QWidget):
    """A header button and the boxes below it, which are hidden while the section is folded.

    A section that the user opens is scrolled to.

    Parameters
    ----------
    title
    *boxes
    opened
        At first.
    corners
        Buttons at the right end of the header.
    with_change_button
        Offer "change" beside the summary of the folded section.

    Attributes
    ----------
    toggled : Signal
        Whether the section is open now.
    chosen : Signal
        The same, when the user pressed the header.
    """

    toggled = Signal(bool)
    chosen = Signal(bool)

    def __init__(
        self,
        title: str,
        *boxes: QWidget,
        opened: bool = False,
        corners: Iterable[QWidget] = (),
        with_change_button: bool = False,
    ) -> None:
        super().__init__()
        self._chosen, self._needed = opened, False
        self._with_change_button = with_change_button
        self.header = _HeaderButton()
        self.header.setText(title)
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.header.setAutoRaise(True)
        self.header.setCheckable(True)
        self.header.setAccessibleName(f"{title}: section")
        font = self.header.font()
        font.setBold(True)
        self.header.setFont(font)
        self.summary_label = SummaryLabel()
        self.change_button = QToolButton()
        self.change_button.setText("change")
        self.change_button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the header is the one for keys
        self.content = QWidget()
        column = QVBoxLayout(self.content)
        column.setContentsMargins(0, 0, 0, 0)
        for box in boxes:
            column.addWidget(box)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.header)
        row.addWidget(self.summary_label, 1)
        row.addStretch(0)
        row.addWidget(self.change_button)
        for corner in corners:
            row.addWidget(corner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addLayout(row)
        outer.addWidget(self.content)
        self.header.clicked.connect(self._on_header_clicked)
        self.change_button.clicked.connect(self.header.click)
        self._apply()

    @property
    def is_open(self) -> bool:
        """Whether the boxes are shown."""
        return self._chosen or self._needed

    def expand(self) -> None:
        """Open the section."""
        self._set(True, self._needed)

    def collapse(self) -> None:
        """Fold the section, unless it is needed."""
        self._set(False, self._needed)

    def set_needed(self, needed: bool) -> None:
        """Keep the section open while something in it waits for the user."""
        if needed != self._needed:
            self._set(self._chosen, needed)

    def set_summary(self, text: str) -> None:
        """Set what the header of the folded section says."""
        self.summary_label.set_summary(text)
        self.header.setAccessibleDescription(text)

    def _on_header_clicked(self, opened: bool) -> None:
        self._set(opened, False)
        self.chosen.emit(opened)
        column = find_column(self)
        if opened and column is not None:
            column.reveal(self)

    def _set(self, chosen: bool, needed: bool) -> None:
        before = self.is_open
        self._chosen, self._needed = chosen, needed
        self._apply()
        if self.is_open != before:
            self.toggled.emit(self.is_open)

    def _apply(self) -> None:
        opened = self.is_open
        self.header.setChecked(opened)
        self.header.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.content.setVisible(opened)
        self.summary_label.setVisible(not opened)
        self.change_button.setVisible(self._with_change_button and not opened)


def reveal_answer(box: QWidget) -> Callable[[], None]:
    """Scroll to the section of a box in which something was pressed, or to the box itself.

    Parameters
    ----------
    box
        In a `ScrollColumn`; elsewhere nothing happens.

    Returns
    -------
    callable
        Scrolls there again when the answer has come, unless the user has scrolled or turned to
        another part of the column in the meantime.
    """
    column, shown = find_column(box), _find_section(box) or box
    if column is None:
        return lambda: None
    column.reveal(shown)
    scroll_count, focus = column.scroll_count, column.window().focusWidget()

    def reveal() -> None:
        now = column.window().focusWidget()
        is_in_column = now is not None and column.isAncestorOf(now)
        is_elsewhere = now is not focus and is_in_column and not shown.isAncestorOf(now)
        if column.scroll_count == scroll_count and not is_elsewhere:
            column.reveal(shown)

    return reveal


def _find_section(box: QWidget) -> FoldSection | None:
    parent = box.parentWidget()
    while parent is not None and not isinstance(parent, FoldSection):
        parent = parent.parentWidget()
    return parent
