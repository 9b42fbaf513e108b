"""Boxes to load, choose and register measured sections and to arrange their maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QMenu,
    QPushButton,
    QRadioButton,
    QToolButton,
    QWidget,
)

from .....expression.readers.read_account import account_of
from ....session.shortcut_actions import connect_shortcut_changes, set_tooltip, shortcut_label
from ....widgets.qt_utils import (
    escape_ampersand,
    fill_column,
    make_progress_bar,
    make_row,
    make_shrinkable,
    make_text_label,
    raise_dock,
)
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import WARNING_COLOR, set_text_color
from ..data.loaded_section import LoadedSection, SectionCandidate
from ..data.quality_model import MapKind, MapLayout, QualityModel
from ..maps.value_maps import ValueMapLayers
from ..quality_controller import QualityController
from .few_genes_box import FewGenesBox

if TYPE_CHECKING:
    from anndata import AnnData


MEASURED_FILE_FILTER = (
    "Measured ST (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz *.txt *.mtx.gz);;All (*)"
)
LOAD_TOOLTIP = "Space Ranger, her2st, h5ad, SpatialData or HEST; or drop a folder or file on napari"
NO_SECTION_HINT = (
    "Spots that were measured on this slide, to be held against what is predicted there."
)


class LoadSectionButton(QPushButton):
    """Button with a menu that loads measured sections from a folder or from files.

    Parameters
    ----------
    controller
    file_filter
        Of the file dialog.
    list_candidates
        Whether the menu also lists the sections of the folder that was loaded last.
    """

    def __init__(
        self,
        controller: QualityController,
        file_filter: str = MEASURED_FILE_FILTER,
        list_candidates: bool = False,
    ) -> None:
        super().__init__("Load measured ST...")
        self._controller, self._file_filter = controller, file_filter
        self._list_candidates = list_candidates
        self.setToolTip(LOAD_TOOLTIP)
        self._menu = QMenu(self)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.setMenu(self._menu)

    def _fill_menu(self) -> None:
        self._menu.clear()
        self._menu.addAction("A folder...", self._ask_folder)
        self._menu.addAction("Files...", self._ask_files)
        candidates = self._controller.model.candidates if self._list_candidates else ()
        if candidates:
            self._menu.addSection("In the same folder")
        for candidate in candidates:
            self._menu.addAction(
                escape_ampersand(candidate.name),
                partial(self._controller.load_candidate, candidate),
            )

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder with measured ST")
        if name:
            self._controller.load([Path(name)])

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Files of measured ST", "", self._file_filter)
        if names:
            self._controller.load([Path(n) for n in names])


class LandmarksBox(QWidget):
    """Instruction for the next click and the buttons to end, while landmarks are clicked."""

    def __init__(self, controller: QualityController, connections: SignalConnections) -> None:
        super().__init__()
        self._model = controller.model
        self.instruction_label = make_text_label()
        self.done_button, self.undo_button = QPushButton("Done"), QPushButton("Undo")
        self.cancel_button = QPushButton("Cancel")
        buttons = make_row(self.done_button, self.undo_button, self.cancel_button)
        fill_column(self, self.instruction_label, buttons)
        self.done_button.clicked.connect(lambda: controller.end_landmarks(apply=True))
        self.cancel_button.clicked.connect(lambda: controller.end_landmarks())
        self.undo_button.clicked.connect(self._undo_click)
        connections.connect(self.refresh, self._model.landmarks_changed)
        self.refresh()

    def _undo_click(self) -> None:
        if self._model.landmarks is not None:
            self._model.landmarks.undo()

    def refresh(self) -> None:
        landmarks = self._model.landmarks
        self.setVisible(landmarks is not None)
        if landmarks is not None:
            self.instruction_label.setText(landmarks.instruction)
            self.done_button.setEnabled(landmarks.can_finish)
            self.undo_button.setEnabled(landmarks.can_undo)


class MeasuredBox(QWidget):
    """Loads, chooses and registers sections, and shows how far the comparison is."""

    def __init__(
        self,
        controller: QualityController,
        connections: SignalConnections,
        value_maps: ValueMapLayers,
    ) -> None:
        super().__init__()
        self._controller, self._model = controller, controller.model
        self._value_maps = value_maps
        model, session = controller.model, controller.session
        self.load_button = LoadSectionButton(controller)
        self.section_combo = QComboBox()
        make_shrinkable(self.section_combo)
        self.section_combo.setToolTip("Loaded sections, and others of the same folder")
        self.remove_button = QToolButton()
        self.remove_button.setText("\N{MULTIPLICATION SIGN}")
        self.remove_button.setToolTip("Remove this section and its maps")
        self.choice_label = make_text_label()
        self.registration_label, self.warning_label = make_text_label(), make_text_label()
        set_text_color(self.warning_label, WARNING_COLOR)
        self.account_label = make_text_label(selectable=True)
        self.account_label.setToolTip("What was read of the files of this section")
        self.few_genes_box = FewGenesBox(
            controller, connections, lambda: [] if model.section is None else [model.section]
        )
        self.register_button = QPushButton("Register by landmarks")
        self.register_button.setToolTip(
            "For spots that belong to another scan of this section: click the same three places "
            "on both"
        )
        self.landmarks_box = LandmarksBox(controller, connections)
        self.map_layout_box = MapLayoutBox(model, connections, value_maps)
        self.progress_bar = make_progress_bar()
        self.status_label = make_text_label()
        self.cancel_button = QPushButton("Cancel")
        self._build()
        self.section_combo.activated.connect(self._on_section_chosen)
        self.remove_button.clicked.connect(self._remove_section)
        self.register_button.clicked.connect(self._start_registration)
        self.cancel_button.clicked.connect(controller.cancel)
        connections.connect(self.refresh, model.sections_changed, model.section_changed)
        connections.connect(self.refresh, session.slides_changed, session.slide_changed)
        connections.connect(self.refresh, model.landmarks_changed)
        connections.connect(self._show_account, model.prediction_updated, model.comparison_changed)
        connections.connect(self._show_progress, model.progress_changed)
        self.refresh()
        self._show_progress()

    def _build(self) -> None:
        self._section_row, self._progress_row = QWidget(), QWidget()
        fill_column(self._section_row, make_row((self.section_combo, 1), self.remove_button))
        fill_column(self._progress_row, make_row((self.status_label, 1), self.cancel_button))
        fill_column(
            self,
            self.load_button,
            self._section_row,
            self.choice_label,
            self.account_label,
            self.registration_label,
            self.warning_label,
            self.few_genes_box,
            self.register_button,
            self.landmarks_box,
            self.map_layout_box,
            self.progress_bar,
            self._progress_row,
        )

    def open_load_menu(self) -> None:
        """Open the menu of the load button."""
        raise_dock(self)
        self.load_button.showMenu()

    def _on_section_chosen(self, index: int) -> None:
        item = self.section_combo.itemData(index)
        if isinstance(item, LoadedSection):
            self._controller.choose_section(item)
        elif isinstance(item, SectionCandidate):
            self._controller.load_candidate(item)

    def _remove_section(self) -> None:
        if self._model.section is not None:
            self._controller.remove_section(self._model.section)

    def _start_registration(self) -> None:
        self._value_maps.hide()  # the landmarks need the whole canvas
        self._controller.start_landmarks()

    def refresh(self) -> None:
        model, section = self._model, self._model.section
        self._section_row.setVisible(bool(model.sections or model.candidates))
        self.section_combo.clear()
        for loaded in model.sections:
            self.section_combo.addItem(loaded.name, loaded)
        names = {s.name for s in model.sections}
        for candidate in model.candidates:
            if candidate.name not in names:
                self.section_combo.addItem(f"{candidate.name} (load)", candidate)
        self.choice_label.setText(describe_choice(section, model.candidates))
        self.choice_label.setVisible(bool(self.choice_label.text()))
        self.section_combo.setCurrentIndex(-1 if section is None else model.sections.index(section))
        self.remove_button.setEnabled(section is not None)
        has_controls = section is not None and model.landmarks is None
        self.register_button.setVisible(has_controls)
        self.map_layout_box.setVisible(has_controls)
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
        self._show_account()
        self.warning_label.setText(warning)
        self.warning_label.setVisible(bool(warning))
        self.register_button.setEnabled(model.session.slide is not None)

    def _show_account(self) -> None:
        section, pair = self._model.section, self._model.pair
        labelled = None if pair is None else pair.measured.data
        self.account_label.setText("" if section is None else describe_account(section, labelled))
        self.account_label.setVisible(section is not None)

    def _show_progress(self) -> None:
        busy, stage, (done, total) = self._controller.busy, self._model.stage, self._model.progress
        self.progress_bar.setVisible(busy)
        self._progress_row.setVisible(busy)
        if self.progress_bar.show_progress(done, total, stage):
            self.status_label.setText(f"{stage}   {done:,} of {total:,}" if total else stage)


class MapLayoutBox(QWidget):
    """Measured, predicted and residual: side by side, or one of them on the slide."""

    def __init__(
        self, model: QualityModel, connections: SignalConnections, value_maps: ValueMapLayers
    ) -> None:
        super().__init__()
        self._model, self._value_maps = model, value_maps
        self.layout_buttons = {layout: QRadioButton(str(layout)) for layout in MapLayout}
        self.map_buttons = {kind: QRadioButton(str(kind)) for kind in MapKind}
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
        layout_row, map_row = make_row(), make_row()
        self._groups = QButtonGroup(self), QButtonGroup(self)
        for buttons, group, row in (
            (self.layout_buttons, self._groups[0], layout_row),
            (self.map_buttons, self._groups[1], map_row),
        ):
            for button in buttons.values():
                group.addButton(button)
                row.addWidget(button)
            row.addStretch(1)
        fill_column(self._stacked_options, map_row, self.swipe_checkbox)
        fill_column(self, layout_row, self._stacked_options)
        for layout, button in self.layout_buttons.items():
            button.clicked.connect(lambda _=False, layout=layout: self._set_layout(layout))
        for kind, button in self.map_buttons.items():
            button.clicked.connect(lambda _=False, kind=kind: model.show_map(kind))
        self.swipe_checkbox.toggled.connect(model.set_swipe)
        connections.connect(self.refresh, model.layout_changed)
        connect_shortcut_changes(self.refresh, connections, "swipe", "blink")
        self.refresh()

    def _set_layout(self, layout: MapLayout) -> None:
        self._value_maps.hide()  # they would lie on the maps that are asked for
        self._model.set_layout(layout)

    def refresh(self) -> None:
        model, swipe, blink = self._model, shortcut_label("swipe"), shortcut_label("blink")
        text = f"swipe ({swipe})" if swipe else "swipe"
        self.swipe_checkbox.setText(f"{text}; {blink} blinks" if blink else text)
        self.layout_buttons[model.layout].setChecked(True)
        self.map_buttons[model.visible_map].setChecked(True)
        self._stacked_options.setVisible(model.layout is MapLayout.STACKED)
        self.swipe_checkbox.blockSignals(True)
        self.swipe_checkbox.setChecked(model.swipe)
        self.swipe_checkbox.blockSignals(False)


def describe_choice(section: LoadedSection | None, candidates: Sequence[SectionCandidate]) -> str:
    """Describe which section of a file or folder with several is shown; "" where it is not one."""
    names = [candidate.name for candidate in candidates]
    if section is None or section.name not in names:
        return ""
    source = candidates[names.index(section.name)].source
    return (
        f"{section.name} is one of {len(names)} sections in {source.name}; "
        "choose another one in this list."
    )


def describe_account(section: LoadedSection, labelled: AnnData | None = None) -> str:
    """Describe what was read of a section: a line each for spots, genes, pixel size, ...

    Parameters
    ----------
    section
    labelled
        Its spots with labels for a checkpoint; its account also has the genes that match.
    """
    account = account_of(section.data if labelled is None else labelled).without_folders()
    slide = section.slide
    if slide is not None:
        size, file = slide.pixel_size, slide.slide
        mpp, origin = (None, "") if size is None else (size.mpp, size.origin)
        names = [image.name for image in file.images]
        account = account.take_slide(file.label, mpp, origin, file.image_name, names)
    return "\n".join(account.lines())


def describe_registration(section: LoadedSection) -> str:
    """Describe a placement, e.g. ``Registered by the files; 3 of 176 spots off tissue.``"""
    if not section.registration:
        return "Not on a slide yet."
    text = f"Registered {section.registration}"
    placement = section.placement
    if placement is None:
        return f"{text}."
    off = int(placement.off_tissue.sum())
    return f"{text}; {off:,} of {len(placement.off_tissue):,} spots off tissue."
