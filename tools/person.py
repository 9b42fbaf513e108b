"""A person at the window: reads what is in sight and acts on it with the mouse.

Used by the walks in ``tests/viewer/test_walks.py`` and by the tour of ``make screenshots``. Mouse
events go to the window, so that whatever lies at a place receives them, a menu or a dialog in front
too. A walk is a generator, which goes on in the event loops of menus and dialogs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import (
    QCoreApplication,
    QEvent,
    QEventLoop,
    QMimeData,
    QObject,
    QPoint,
    QPointF,
    QRect,
    Qt,
    QTimer,
    QUrl,
)
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QImage, QRegion, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QComboBox,
    QLabel,
    QMainWindow,
    QMenu,
    QMenuBar,
    QScrollArea,
    QStatusBar,
    QWidget,
)

LEFT, NO_KEY = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
PATIENCE_S = 60.0
STEP_MS = 20
REST_STEPS = 6  # a column scrolls to what was asked for a moment later

Walk = Iterator[Callable[[], bool]]
"""Yields what the person waits for."""


@dataclass(frozen=True)
class Seen:
    """A text in sight and its place in a widget."""

    text: str
    widget: QWidget
    rect: QRect

    @property
    def place(self) -> QPoint:
        """Its middle on the screen."""
        return self.widget.mapToGlobal(self.rect.center())


@dataclass(frozen=True)
class Action:
    """What a person did, and when something in sight had changed.

    Attributes
    ----------
    what : str
    seconds : float
        Until the change; those of the machine, with whatever else runs on it.
    cpu_s : float
        What the window's thread computed until the change.
    """

    what: str
    seconds: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.seconds:6.2f} s, {self.cpu_s:5.2f} s of the window's thread  {self.what}"


class Answer(QObject):
    """Waits for the first change in sight after an action, also in the middle of a long slot.

    Attributes
    ----------
    cpu_s : float or None
        What the thread computed until then, without looking.
    """

    def __init__(self, texts: frozenset[str], canvas: QImage) -> None:
        super().__init__()
        self._texts, self._canvas = texts, canvas
        self._start, self._wall_start = time.thread_time(), time.perf_counter()
        self._looking_s = 0.0
        self.cpu_s: float | None = None
        self.seconds = 0.0
        QApplication.instance().installEventFilter(self)

    def is_there(self, look: Callable[[], tuple[frozenset[str], QImage]]) -> bool:
        """Look for a new text, or for another picture of the slide."""
        if self.cpu_s is None:
            start = time.thread_time()
            texts, canvas = look()
            is_new = bool(texts - self._texts) or canvas != self._canvas
            self._looking_s += time.thread_time() - start
            if is_new:
                self._take_time()
        return self.cpu_s is not None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if (
            event.type() == QEvent.Type.Paint
            and isinstance(watched, QLabel)
            and self.cpu_s is None
            and _plain(watched.text()) not in self._texts
            and not _is_in_status_bar(watched)
        ):
            self._take_time()
        return False

    def _take_time(self) -> None:
        self.cpu_s = time.thread_time() - self._start - self._looking_s
        self.seconds = time.perf_counter() - self._wall_start
        QApplication.instance().removeEventFilter(self)


class Person:
    """Sees the windows of the application, and acts on them.

    Attributes
    ----------
    actions : list of Action
        A press, a click, a stroke on the slide, or a file that is dropped. Opening a panel from its
        menu is one.
    wheel_turns : int
        How often the person had to scroll to find something.
    pointer : QPoint
        Position of the mouse on the screen.
    """

    def __init__(self, window: QMainWindow) -> None:
        self.window = window
        self.actions: list[Action] = []
        self.wheel_turns = 0
        self.pointer = window.mapToGlobal(window.rect().center())
        self.on_step: Callable[[], None] = lambda: None

    def run(self, walk: Walk) -> None:
        """Take a walk to its end.

        Raises
        ------
        AssertionError
            If what the person waits for does not come within `PATIENCE_S`.
        """
        loop, timer = QEventLoop(), QTimer()
        waiting, since, failures, is_acting = next(walk), time.perf_counter(), [], False

        def step() -> None:
            nonlocal waiting, since, is_acting
            if is_acting:  # sending a mouse event processes others
                return
            is_acting = True
            self.on_step()
            try:
                if waiting():
                    waiting, since = next(walk), time.perf_counter()
                elif time.perf_counter() - since > PATIENCE_S:
                    walk.throw(AssertionError(f"in vain; in sight: {self.texts()}"))
            except StopIteration:
                end()
            except BaseException as error:  # raised below, outside of Qt's slots
                failures.append(error)
                end()
            finally:
                is_acting = False

        def end() -> None:
            timer.stop()
            while front := _front_window():
                front.close()
            loop.quit()

        timer.timeout.connect(step)
        timer.start(STEP_MS)
        loop.exec()
        timer.timeout.disconnect(step)
        if failures:
            raise failures[0]

    # ---- seeing ------------------------------------------------------------------------

    def texts(self) -> frozenset[str]:
        """All texts in sight, without those of the status bar."""
        return frozenset(seen.text for seen in self._read())

    def sees(self, pattern: str) -> bool:
        """Whether a text in sight contains a pattern."""
        return any(re.search(pattern, text) for text in self.texts())

    def sees_whole(self, kind: str) -> bool:
        """Whether a widget of a class is in sight from its top to its bottom."""
        return any(
            type(widget).__name__ == kind
            and QRegion(widget.rect()).subtracted(widget.visibleRegion()).isEmpty()
            for widget in _visible_widgets()
        )

    def canvas(self) -> QImage:
        """What lies in the middle of the window: the slide and the maps."""
        return self.window.centralWidget().grab().toImage()

    def _read(self, kinds: type | tuple[type, ...] = QWidget) -> Iterator[Seen]:
        for widget in _visible_widgets():
            is_visible = isinstance(widget, kinds) and not widget.visibleRegion().isEmpty()
            if is_visible and not _is_in_status_bar(widget):
                yield from _read_widget(widget)

    def _find(self, text: str) -> Seen | None:
        """A button, an entry of a menu or of a list; that with no other text comes first."""
        kinds = (QAbstractButton, QComboBox, QMenu, QMenuBar, QAbstractItemView)
        found = [seen for seen in self._read(kinds) if text in seen.text]
        front = _front_window()
        if front is not None:
            found = [seen for seen in found if seen.widget.window() is front]
        return min(found, key=lambda seen: len(seen.text), default=None)

    # ---- acting ------------------------------------------------------------------------

    def drop(self, *paths: Path) -> Walk:
        """Drop files on the middle of the window."""
        place = self.window.mapToGlobal(self.window.rect().center())
        target = QApplication.widgetAt(place)
        while not target.acceptDrops():
            target = target.parentWidget()
        mime, inside = QMimeData(), QPointF(target.mapFromGlobal(place))
        mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
        how = Qt.DropAction.CopyAction, mime, LEFT, NO_KEY

        def let_go() -> None:
            QCoreApplication.sendEvent(target, QDragEnterEvent(inside.toPoint(), *how))
            QCoreApplication.sendEvent(target, QDropEvent(inside, *how))

        names = ", ".join(path.name for path in paths)
        yield from self._act(f"drop {names}", place, let_go)

    def open_panel(self, title: str, plugin: str = "napari-dkan") -> Walk:
        """Open a panel from the menu: one action, however many entries."""
        count = len(self.actions)
        for entry in ("Plugins", plugin, title):
            yield from self.press(entry)
        seconds = max(action.seconds for action in self.actions[count:])
        cpu_s = max(action.cpu_s for action in self.actions[count:])
        self.actions[count:] = [Action(f"open {title}", seconds, cpu_s)]

    def press(self, text: str) -> Walk:
        """Press a button, or an entry of a menu or list, scrolling to it where necessary."""
        yield from for_steps(REST_STEPS)
        yield from self._scroll_to(text)
        places: list[QPoint | None] = [None] * REST_STEPS

        def rests() -> bool:
            found = self._find(text)
            places.append(None if found is None else found.place)
            last = places[-REST_STEPS:]
            return last[0] is not None and all(place == last[0] for place in last)

        yield rests  # a dialog that opens, or a column that is scrolled, moves at first

        def press() -> None:
            found = self._find(text)  # the column may have moved meanwhile
            self.pointer = self.pointer if found is None else found.place
            self._click()

        found = self._find(text)
        if isinstance(found.widget, QMenu) and found.widget.actionAt(found.rect.center()).menu():
            yield from self._hover(f"point at {text!r}", places[-1])
        else:
            yield from self._act(f"press {text!r}", places[-1], press)

    def click(self, x: float, y: float) -> Walk:
        """Click on the slide, at a share of the width and of the height of the canvas."""
        yield from self._act(f"click at {x:.2f}, {y:.2f}", self._on_canvas(x, y), self._click)

    def stroke(self, shares: Iterable[tuple[float, float]]) -> Walk:
        """Drag the mouse over the slide with the button held down."""
        places = [self._on_canvas(x, y) for x, y in shares]
        yield from self._move(places[0])
        before = self._look()
        QTest.mousePress(self._front(), LEFT, NO_KEY, self._in_front(places[0]))
        for place in places[1:]:
            yield from self._move(place)
        answer = Answer(*before)
        QTest.mouseRelease(self._front(), LEFT, NO_KEY, self._in_front(places[-1]))
        yield from self._take_answer("draw on the slide", answer)

    def wait(self, pattern: str) -> Walk:
        """Wait for a text."""
        yield lambda: self.sees(pattern)

    def _act(self, what: str, place: QPoint, do: Callable[[], object]) -> Walk:
        """Do something, and wait until something in sight has changed and the window is free."""
        is_over = False

        def do_it() -> None:
            nonlocal is_over
            do()
            is_over = True

        yield from self._move(place)
        answer = Answer(*self._look())
        QTimer.singleShot(0, do_it)
        yield from self._take_answer(what, answer)
        # napari processes events while it opens a file; a menu or dialog returns when it is closed
        yield lambda: is_over or _front_window() is not None

    def _hover(self, what: str, place: QPoint) -> Walk:
        """Point at what opens by itself; a click would close it again."""
        answer = Answer(*self._look())
        yield from self._move(place)
        yield from self._take_answer(what, answer)

    def _take_answer(self, what: str, answer: Answer) -> Walk:
        yield lambda: answer.is_there(self._look)
        self.actions.append(Action(what, answer.seconds, answer.cpu_s))

    def _look(self) -> tuple[frozenset[str], QImage]:
        return self.texts(), self.canvas()

    def _click(self) -> None:
        QTest.mouseClick(self._front(), LEFT, NO_KEY, self._in_front(self.pointer))

    def _move(self, place: QPoint) -> Walk:
        self.pointer = place
        QTest.mouseMove(self._front(), self._in_front(place))
        yield lambda: True

    def _front(self):
        top = QApplication.topLevelAt(self.pointer) or self.window
        return top.windowHandle()

    def _in_front(self, place: QPoint) -> QPoint:
        return self._front().mapFromGlobal(place)

    def _on_canvas(self, x: float, y: float) -> QPoint:
        canvas = self.window.centralWidget()
        return canvas.mapToGlobal(QPoint(round(x * canvas.width()), round(y * canvas.height())))

    def _scroll_to(self, text: str) -> Walk:
        """Turn the wheel over a column until what holds a text is in sight."""
        target = None if self._find(text) else _find_scrolled_away(text)
        if target is None:
            return
        area = target.parentWidget()
        while not isinstance(area, QScrollArea):
            area = area.parentWidget()
        port, bar = area.viewport(), area.verticalScrollBar()
        middle, before = QPointF(port.rect().center()), -1
        while _is_scrolled_away(target) and bar.value() != before:
            before = bar.value()
            down = target.mapTo(port, target.rect().center()).y() > middle.y()
            event = QWheelEvent(
                middle,
                QPointF(port.mapToGlobal(middle.toPoint())),
                QPoint(),
                QPoint(0, -120 if down else 120),
                Qt.MouseButton.NoButton,
                NO_KEY,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QCoreApplication.sendEvent(port, event)
            self.wheel_turns += 1
            yield lambda: True


def _front_window() -> QWidget | None:
    """A menu or a dialog in front of everything."""
    return QApplication.activePopupWidget() or QApplication.activeModalWidget()


def for_steps(count: int) -> Walk:
    """Let the application go on for a while."""
    for _ in range(count):
        yield lambda: True


def _find_scrolled_away(text: str) -> QWidget | None:
    """A button or list that is out of sight in its scrolled column."""
    for widget in _visible_widgets():
        if isinstance(widget, QAbstractButton):
            holds = _plain(widget.text()) == text
        elif isinstance(widget, QAbstractItemView) and widget.model() is not None:
            model, contains = widget.model(), Qt.MatchFlag.MatchContains
            role = Qt.ItemDataRole.DisplayRole
            holds = bool(model.match(model.index(0, 0), role, text, 1, contains))
        else:
            holds = False
        if holds and _is_scrolled_away(widget):
            return widget
    return None


def _visible_widgets() -> Iterator[QWidget]:
    for top in QApplication.topLevelWidgets():
        if top.isVisible():
            yield top
            yield from (widget for widget in top.findChildren(QWidget) if widget.isVisible())


def _is_in_status_bar(widget: QWidget) -> bool:
    """Whether its text follows the mouse."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QStatusBar):
        parent = parent.parentWidget()
    return parent is not None


def _is_scrolled_away(widget: QWidget) -> bool:
    return not widget.visibleRegion().contains(widget.rect().center())


def _plain(text: str) -> str:
    return re.sub("<[^>]+>", "", text).replace("&", "").removesuffix("...").strip()


def _read_widget(widget: QWidget) -> Iterator[Seen]:
    if isinstance(widget, QAbstractButton):
        mark = " \N{CHECK MARK}" if widget.isChecked() else ""
        yield Seen(_plain(widget.text()) + mark, widget, widget.rect())
    elif isinstance(widget, QLabel):
        yield Seen(_plain(widget.text()), widget, widget.rect())
    elif isinstance(widget, QComboBox):
        yield Seen(_plain(widget.currentText()), widget, widget.rect())
    elif isinstance(widget, QMenu | QMenuBar):
        for action in widget.actions():
            if action.isVisible():
                yield Seen(_plain(action.text()), widget, widget.actionGeometry(action))
    elif isinstance(widget, QAbstractItemView) and widget.model() is not None:
        yield from _read_items(widget)


def _read_items(view: QAbstractItemView) -> Iterator[Seen]:
    """The cells that are in sight, from the first one on."""
    port, model = view.viewport(), view.model()
    index = view.indexAt(QPoint(4, 4))
    y = 4
    while index.isValid() and y < port.height():
        for column in range(model.columnCount(index.parent())):
            cell = index.siblingAtColumn(column)
            rect = view.visualRect(cell)
            if rect.intersects(port.rect()):
                yield Seen(_plain(str(cell.data() or "")), port, rect)
        y = max(y, view.visualRect(index).bottom()) + 2
        index = view.indexAt(QPoint(4, y))
