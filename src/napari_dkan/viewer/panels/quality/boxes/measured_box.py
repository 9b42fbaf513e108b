"""Boxes to load, choose and register measured sections and to choose the layout of their maps."""

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

from ....session.shortcut_actions import connect_shortcut_changes, set_tooltip, shortcut_label
from ....session.viewer_session import ViewerSession
from ....widgets.qt_utils import make_shrinkable, raise_dock
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import WARNING_COLOR, set_text_color
from ..data.loaded_section import LoadedSection, SectionCandidate
from ..data.quality_model import MapKind, MapLayout
from ..maps.value_maps import ValueMapLayers
from ..quality_controller import QualityController


class LandmarksBox(QWidget):
    """The instruction for the next click, and the ways out; there while landmarks are clicked."""

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        super().__init__()
        self._quality = quality
        self.instruction_label = QLabel()
        self.instruction_label.setWordWrap(True)
        self.done_button, self.undo_button = QPushButton("Done"), QPushButton("Undo")
        self.cancel_button = QPushButton("Cancel")
        line = QHBoxLayout()
        for button in (self.done_button, self.undo_button, self.cancel_button):
            line.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.instruction_label)
        layout.addLayout(line)
        self.done_button.clicked.connect(lambda: quality.end_landmarks(apply=True))
        self.cancel_button.clicked.connect(lambda: quality.end_landmarks())
        self.undo_button.clicked.connect(self._undo_click)
        connections.connect(self.refresh, quality.landmarks_changed)
        self.refresh()

    def _undo_click(self) -> None:
        if self._quality.landmarks is not None:
            self._quality.landmarks.undo()

    def refresh(self) -> None:
        landmarks = self._quality.landmarks
        self.setVisible(landmarks is not None)
        if landmarks is not None:
            self.instruction_label.setText(landmarks.instruction)
            self.done_button.setEnabled(landmarks.can_finish)
            self.undo_button.setEnabled(landmarks.can_undo)


NO_SECTION_HINT = (
    "Spots that were measured on this slide, to be held against what is predicted there."
)


class MeasuredBox(QWidget):
    """From a folder or files to maps beside each other."""

    def __init__(
        self,
        session: ViewerSession,
        quality: QualityController,
        connections: SignalConnections,
        value_maps: ValueMapLayers,
    ) -> None:
        super().__init__()
        self._session, self._quality, self._value_maps = session, quality, value_maps
        self.load_button = QPushButton("Load measured ST...")
        self.load_button.setToolTip(
            "Space Ranger, her2st, h5ad, SpatialData or HEST; or drop a folder or file on napari"
        )
        menu = QMenu(self.load_button)
        menu.addAction("A folder...", self._ask_folder)
        menu.addAction("Files...", self._ask_files)
        self.load_button.setMenu(menu)
        self.section_combo = QComboBox()
        make_shrinkable(self.section_combo)
        self.section_combo.setToolTip("Loaded sections, and others of the same folder")
        self.remove_button = QToolButton()
        self.remove_button.setText("\N{MULTIPLICATION SIGN}")
        self.remove_button.setToolTip("Remove this section and its maps")
        self.registration_label = QLabel()
        self.warning_label = QLabel()
        set_text_color(self.warning_label, WARNING_COLOR)
        for label in (self.registration_label, self.warning_label):
            label.setWordWrap(True)
        self.register_button = QPushButton("Register by landmarks")
        self.register_button.setToolTip(
            "For spots that belong to another scan of this section: click the same three places "
            "on both"
        )
        self.landmarks_box = LandmarksBox(quality, connections)
        self.map_layout_box = MapLayoutBox(quality, connections, value_maps)
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setMaximumHeight(8)
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        self.cancel_button = QPushButton("Cancel")
        self._build()
        self.section_combo.activated.connect(self._on_section_chosen)
        self.remove_button.clicked.connect(self._remove_section)
        self.register_button.clicked.connect(self._start_registration)
        self.cancel_button.clicked.connect(quality.cancel)
        connections.connect(self.refresh, quality.sections_changed, quality.section_changed)
        connections.connect(self.refresh, session.slides_changed, session.slide_changed)
        connections.connect(self.refresh, quality.landmarks_changed)
        connections.connect(self._show_progress, quality.progress_changed)
        self.refresh()
        self._show_progress()

    def _build(self) -> None:
        self._section_row = QWidget()
        line = QHBoxLayout(self._section_row)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.section_combo, 1)
        line.addWidget(self.remove_button)
        self._progress_row = QWidget()
        running = QHBoxLayout(self._progress_row)
        running.setContentsMargins(0, 0, 0, 0)
        running.addWidget(self.status_label, 1)
        running.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.load_button,
            self._section_row,
            self.registration_label,
            self.warning_label,
            self.register_button,
            self.landmarks_box,
            self.map_layout_box,
            self.progress_bar,
            self._progress_row,
        ):
            layout.addWidget(widget)

    # ---- loading ---------------------------------------------------------------------

    def open_load_menu(self) -> None:
        """As a click on the button does."""
        raise_dock(self)
        self.load_button.showMenu()

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

    def _on_section_chosen(self, index: int) -> None:
        item = self.section_combo.itemData(index)
        if isinstance(item, LoadedSection):
            self._quality.choose_section(item)
        elif isinstance(item, SectionCandidate):
            self._quality.load_candidate(item)

    def _remove_section(self) -> None:
        if self._quality.section is not None:
            self._quality.remove_section(self._quality.section)

    def _start_registration(self) -> None:
        self._value_maps.set_side_by_side(False)  # they need the canvas
        self._quality.start_landmarks()

    # ---- showing ---------------------------------------------------------------------

    def refresh(self) -> None:
        quality, section = self._quality, self._quality.section
        self._section_row.setVisible(bool(quality.sections or quality.candidates))
        self.section_combo.clear()
        for loaded in quality.sections:
            self.section_combo.addItem(loaded.name, loaded)
        names = {s.name for s in quality.sections}
        for offered in quality.candidates:
            if offered.name not in names:
                self.section_combo.addItem(f"{offered.name} (load)", offered)
        self.section_combo.setCurrentIndex(
            -1 if section is None else quality.sections.index(section)
        )
        self.remove_button.setEnabled(section is not None)
        there = section is not None
        clicking = quality.landmarks is not None  # the canvas is theirs meanwhile
        self.register_button.setVisible(there and not clicking)
        self.map_layout_box.setVisible(there and not clicking)
        warning = ""
        self.registration_label.setText(NO_SECTION_HINT)
        if section is not None:
            self.registration_label.setText(describe_registration(section))
            if section.slide is None:
                warning = "Open the slide of this section to compare."
            elif section.slide.pixel_size is None:
                warning = "The slide's pixel size is not known; enter it in the Predict panel."
            elif section.placement is not None:
                warning = section.placement.warning
        self.warning_label.setText(warning)
        self.warning_label.setVisible(bool(warning))
        self.register_button.setEnabled(self._session.slide is not None)

    def _show_progress(self) -> None:
        quality = self._quality
        busy, (done, total) = quality.busy, quality.progress
        self.progress_bar.setVisible(busy)
        self._progress_row.setVisible(busy)
        self.progress_bar.setRange(0, total)  # 0 to 0 moves to and fro: nobody knows how long
        self.progress_bar.setValue(done)
        self.status_label.setText(
            f"{quality.stage}   {done:,} of {total:,}" if total else quality.stage
        )


class MapLayoutBox(QWidget):
    """Measured, predicted and residual: side by side, or one of them on the slide."""

    def __init__(
        self, quality: QualityController, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._quality, self._value_maps = quality, value_maps
        self.layout_buttons = {layout: QRadioButton(str(layout)) for layout in MapLayout}
        self.map_buttons = {shown: QRadioButton(str(shown)) for shown in MapKind}
        self.swipe_checkbox = QCheckBox()
        set_tooltip(
            self.swipe_checkbox,
            "Measured left of the mouse, predicted right of it ({key})",
            "swipe",
            connections,
        )
        set_tooltip(
            self.layout_buttons[MapLayout.SIDE_BY_SIDE],
            "Histology, measured, predicted and residual under one camera ({key})",
            "side_by_side",
            connections,
        )
        self._stacked_options = QWidget()
        stacked = QVBoxLayout(self._stacked_options)
        stacked.setContentsMargins(0, 0, 0, 0)
        first, second = QHBoxLayout(), QHBoxLayout()
        self._groups = QButtonGroup(self), QButtonGroup(self)
        for buttons, group, line in (
            (self.layout_buttons, self._groups[0], first),
            (self.map_buttons, self._groups[1], second),
        ):
            for button in buttons.values():
                group.addButton(button)
                line.addWidget(button)
            line.addStretch(1)
        stacked.addLayout(second)
        stacked.addWidget(self.swipe_checkbox)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self._stacked_options)
        for which, button in self.layout_buttons.items():
            button.clicked.connect(lambda _=False, w=which: self._set_layout(w))
        for what, button in self.map_buttons.items():
            button.clicked.connect(lambda _=False, w=what: quality.show_map(w))
        self.swipe_checkbox.toggled.connect(quality.set_swipe)
        connections.connect(self.refresh, quality.layout_changed)
        connect_shortcut_changes(self.refresh, connections, "swipe", "blink")
        self.refresh()

    def _set_layout(self, layout: MapLayout) -> None:
        self._value_maps.set_side_by_side(False)  # the canvas has one grid
        self._quality.set_layout(layout)

    def refresh(self) -> None:
        quality, swipe, blink = self._quality, shortcut_label("swipe"), shortcut_label("blink")
        text = f"swipe ({swipe})" if swipe else "swipe"
        self.swipe_checkbox.setText(f"{text}; {blink} blinks" if blink else text)
        self.layout_buttons[quality.layout].setChecked(True)
        self.map_buttons[quality.visible_map].setChecked(True)
        self._stacked_options.setVisible(quality.layout is MapLayout.STACKED)
        self.swipe_checkbox.blockSignals(True)
        self.swipe_checkbox.setChecked(quality.swipe)
        self.swipe_checkbox.blockSignals(False)


def describe_registration(section: LoadedSection) -> str:
    """``Registered by the files; 3 of 176 spots off tissue``."""
    if not section.registration:
        return "Not on a slide yet."
    text = f"Registered {section.registration}"
    placement = section.placement
    if placement is None:
        return f"{text}."
    off = int(placement.off_tissue.sum())
    return f"{text}; {off:,} of {len(placement.off_tissue):,} spots off tissue."
