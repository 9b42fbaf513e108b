"""The measured sections: load, choose, register, and how their maps are shown."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..actions import follow_keys, tip, told
from ..combo import narrow
from ..dock import raised
from ..links import Links
from ..session import Session
from ..tones import WARNING, tint
from .landmarks_box import LandmarksBox
from .section import Choice, LoadedSection
from .state import Layout, Quality, Shown
from .value_maps import ValueMaps

HINT = "Spots that were measured on this slide, to be held against what is predicted there."


class MeasuredBox(QWidget):
    """From a folder or files to maps beside each other."""

    def __init__(self, session: Session, quality: Quality, links: Links, others: ValueMaps) -> None:
        super().__init__()
        self._session, self._quality, self._others = session, quality, others
        self.load = QPushButton("Load measured ST...")
        self.load.setToolTip(
            "Space Ranger, her2st, h5ad, SpatialData or HEST; or drop a folder or file on napari"
        )
        menu = QMenu(self.load)
        menu.addAction("A folder...", self._ask_folder)
        menu.addAction("Files...", self._ask_files)
        self.load.setMenu(menu)
        self.choice = QComboBox()
        narrow(self.choice)
        self.choice.setToolTip("Loaded sections, and others of the same folder")
        self.remove = QToolButton()
        self.remove.setText("\N{MULTIPLICATION SIGN}")
        self.remove.setToolTip("Remove this section and its maps")
        self.registration = QLabel()
        self.warning = QLabel()
        tint(self.warning, WARNING)
        for label in (self.registration, self.warning):
            label.setWordWrap(True)
        self.register = QPushButton("Register by landmarks")
        self.register.setToolTip(
            "For spots that belong to another scan of this section: click the same three places "
            "on both"
        )
        self.landmarks = LandmarksBox(quality, links)
        self.maps = MapsBox(quality, links, others)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.cancel = QPushButton("Cancel")
        self._build()
        self.choice.activated.connect(self._chosen)
        self.remove.clicked.connect(self._remove)
        self.register.clicked.connect(self._register)
        self.cancel.clicked.connect(quality.cancel)
        links.join(self.refresh, quality.sections_changed, quality.section_changed)
        links.join(self.refresh, session.slides_changed, session.slide_changed)
        links.join(self.refresh, quality.landmarks_changed)
        links.join(self._progress, quality.progress_changed)
        self.refresh()
        self._progress()

    def _build(self) -> None:
        self._section = QWidget()
        line = QHBoxLayout(self._section)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.choice, 1)
        line.addWidget(self.remove)
        self._running = QWidget()
        running = QHBoxLayout(self._running)
        running.setContentsMargins(0, 0, 0, 0)
        running.addWidget(self.state, 1)
        running.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.load,
            self._section,
            self.registration,
            self.warning,
            self.register,
            self.landmarks,
            self.maps,
            self.bar,
            self._running,
        ):
            layout.addWidget(widget)

    # ---- loading ---------------------------------------------------------------------

    def ask(self) -> None:
        """As a click on the button does."""
        raised(self)
        self.load.showMenu()

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder with measured ST")
        if name:
            self._quality.load([Path(name)])

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(
            self,
            "Files of measured ST",
            "",
            "Measured ST (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz *.txt *.mtx.gz);;All (*)",
        )
        if names:
            self._quality.load([Path(n) for n in names])

    def _chosen(self, index: int) -> None:
        item = self.choice.itemData(index)
        if isinstance(item, LoadedSection):
            self._quality.choose(item)
        elif isinstance(item, Choice):
            self._quality.take(item)

    def _remove(self) -> None:
        if self._quality.section is not None:
            self._quality.remove(self._quality.section)

    def _register(self) -> None:
        self._others.lay_out(False)  # they need the canvas
        self._quality.begin_landmarks()

    # ---- showing ---------------------------------------------------------------------

    def refresh(self) -> None:
        quality, section = self._quality, self._quality.section
        self._section.setVisible(bool(quality.sections or quality.choices))
        self.choice.clear()
        for loaded in quality.sections:
            self.choice.addItem(loaded.name, loaded)
        names = {s.name for s in quality.sections}
        for offered in quality.choices:
            if offered.name not in names:
                self.choice.addItem(f"{offered.name} (load)", offered)
        self.choice.setCurrentIndex(-1 if section is None else quality.sections.index(section))
        self.remove.setEnabled(section is not None)
        there = section is not None
        clicking = quality.landmarks is not None  # the canvas is theirs meanwhile
        self.register.setVisible(there and not clicking)
        self.maps.setVisible(there and not clicking)
        warning = ""
        self.registration.setText(HINT)
        if section is not None:
            self.registration.setText(described(section))
            if section.slide is None:
                warning = "Open the slide of this section to compare."
            elif section.slide.pixel_size is None:
                warning = "The slide's pixel size is not known; enter it in the Predict panel."
            elif section.placement is not None:
                warning = section.placement.warning
        self.warning.setText(warning)
        self.warning.setVisible(bool(warning))
        self.register.setEnabled(self._session.slide is not None)

    def _progress(self) -> None:
        quality = self._quality
        busy, (done, total) = quality.busy, quality.progress
        self.bar.setVisible(busy)
        self._running.setVisible(busy)
        self.bar.setRange(0, total)  # 0 to 0 moves to and fro: nobody knows how long
        self.bar.setValue(done)
        self.state.setText(f"{quality.stage}   {done:,} of {total:,}" if total else quality.stage)


class MapsBox(QWidget):
    """Measured, predicted and residual: side by side, or one of them on the slide."""

    def __init__(self, quality: Quality, links: Links, others: ValueMaps) -> None:
        super().__init__()
        self._quality, self._others = quality, others
        self.layouts = {layout: QRadioButton(str(layout)) for layout in Layout}
        self.shown = {shown: QRadioButton(str(shown)) for shown in Shown}
        self.swipe = QCheckBox()
        tip(self.swipe, "Measured left of the mouse, predicted right of it ({key})", "swipe", links)
        tip(
            self.layouts[Layout.SIDE_BY_SIDE],
            "Histology, measured, predicted and residual under one camera ({key})",
            "side_by_side",
            links,
        )
        self._stacked = QWidget()
        stacked = QVBoxLayout(self._stacked)
        stacked.setContentsMargins(0, 0, 0, 0)
        first, second = QHBoxLayout(), QHBoxLayout()
        self._groups = QButtonGroup(self), QButtonGroup(self)
        for buttons, group, line in (
            (self.layouts, self._groups[0], first),
            (self.shown, self._groups[1], second),
        ):
            for button in buttons.values():
                group.addButton(button)
                line.addWidget(button)
            line.addStretch(1)
        stacked.addLayout(second)
        stacked.addWidget(self.swipe)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self._stacked)
        for which, button in self.layouts.items():
            button.clicked.connect(lambda _=False, w=which: self._lay_out(w))
        for what, button in self.shown.items():
            button.clicked.connect(lambda _=False, w=what: quality.show(w))
        self.swipe.toggled.connect(quality.set_swipe)
        links.join(self.refresh, quality.layout_changed)
        follow_keys(self.refresh, links, "swipe", "blink")
        self.refresh()

    def _lay_out(self, layout: Layout) -> None:
        self._others.lay_out(False)  # the canvas has one grid
        self._quality.set_layout(layout)

    def refresh(self) -> None:
        quality, swipe, blink = self._quality, told("swipe"), told("blink")
        text = f"swipe ({swipe})" if swipe else "swipe"
        self.swipe.setText(f"{text}; {blink} blinks" if blink else text)
        self.layouts[quality.layout].setChecked(True)
        self.shown[quality.shown].setChecked(True)
        self._stacked.setVisible(quality.layout is Layout.STACKED)
        self.swipe.blockSignals(True)
        self.swipe.setChecked(quality.swipe)
        self.swipe.blockSignals(False)


def described(section: LoadedSection) -> str:
    """``Registered by the files; 3 of 176 spots off tissue``."""
    if not section.registration:
        return "Not on a slide yet."
    text = f"Registered {section.registration}"
    placement = section.placement
    if placement is None:
        return f"{text}."
    off = int(placement.off_tissue.sum())
    return f"{text}; {off:,} of {len(placement.off_tissue):,} spots off tissue."
