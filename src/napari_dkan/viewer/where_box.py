"""Where to predict, how much that is, and the buttons that start and stop it."""

from __future__ import annotations

from napari.layers import Labels, Layer, Points, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import DkanError
from ..inference.device import chosen_device, device_label
from ..inference.target import Target
from .actions import BY_NAME, tip
from .combo import narrow
from .links import Links
from .maps import Maps
from .places import target_of
from .ready import Ready
from .regions.labels import LabelRegions
from .regions.row import RegionRow
from .session import Session, Where

MODES = {  # by the action that chooses it
    "where_click": Where.CLICK,
    "where_spots": Where.SPOTS,
    "where_region": Where.REGION,
    "where_tissue": Where.TISSUE,
}
PLAN_MS = 120  # wait this long after the last change before counting tiles


class WhereBox(QWidget):
    """Click, Spots layer, Region or Whole tissue; the plan; Predict and Cancel."""

    def __init__(self, session: Session, links: Links, maps: Maps, ready: Ready) -> None:
        super().__init__()
        self._session, self._links, self._maps, self._ready = session, links, maps, ready
        self._target: Target | None = None
        self._labels = LabelRegions()
        self._watched: set[int] = set()

        self.buttons = {where: QRadioButton(str(where)) for where in Where}
        self.group = QButtonGroup(self)
        for row, button in enumerate(self.buttons.values()):
            self.group.addButton(button, row)
        self.points = QComboBox()
        narrow(self.points)
        self.points.setToolTip("The Points layer that holds the spots.")
        self.regions = RegionRow(session, links)
        self.draw = self.regions.draw
        self.edit = QPushButton("Edit outline")
        self.edit.setToolTip("Show what was found to be tissue as shapes that can be edited.")
        self.plan = QLabel()
        self.plan.setWordWrap(True)
        self.predict = QPushButton("Predict")
        self.predict.setDefault(True)
        self.cancel = QPushButton("Cancel")
        tip(self.predict, "Predict what stands above ({key})", "predict", links)
        tip(self.cancel, "Stop; what is finished stays ({key})", "cancel", links)
        for name, where in MODES.items():
            tip(self.buttons[where], f"{BY_NAME[name].does} ({{key}})", name, links)
        self.retry = QPushButton()
        self.retry.setToolTip("Read the tiles again that could not be read.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.state = QLabel()

        places = QGridLayout()
        extras = {Where.SPOTS: self.points, Where.REGION: self.regions, Where.TISSUE: self.edit}
        for row, (where, button) in enumerate(self.buttons.items()):
            places.addWidget(button, row, 0)
            if where in extras:
                places.addWidget(extras[where], row, 1)
        run = QHBoxLayout()
        run.addWidget(self.predict, 2)
        run.addWidget(self.cancel, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(places)
        layout.addWidget(self.plan)
        layout.addLayout(run)
        layout.addWidget(self.retry)
        layout.addWidget(self.bar)
        layout.addWidget(self.state)

        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PLAN_MS)
        self._timer.timeout.connect(self.make_plan)
        self.group.idClicked.connect(self._choose)
        self.points.activated.connect(self._timer.start)
        self.edit.clicked.connect(self.regions.edit_tissue)
        self.predict.clicked.connect(self.start)
        self.cancel.clicked.connect(maps.cancel)
        self.retry.clicked.connect(maps.retry)
        links.join(
            self.replan,
            session.slide_changed,
            session.slide_edited,
            session.checkpoint_changed,
            session.settings_changed,
            ready.changed,
            self._labels.changed,
        )
        links.join(self.refresh, maps.changed, session.overlays_changed)
        layers = session.viewer.layers
        links.join(self._layers_changed, layers.events.inserted, layers.events.removed)
        links.join(self._selected, layers.selection.events.active)
        self._layers_changed()
        self.refresh()
        self.make_plan()

    def stop(self) -> None:
        """Plan nothing any more: the panel is going."""
        self._timer.stop()
        self._timer.timeout.disconnect(self.make_plan)
        self._labels.close()

    # ---- choosing --------------------------------------------------------------------

    def _choose(self, row: int) -> None:
        where = list(Where)[row]
        self._session.change(where=where)
        if where is Where.REGION and self.regions_layer() is None:
            self.regions.begin()

    def _selected(self, event: object = None) -> None:
        """Another layer of regions may be the chosen one now."""
        if self._session.settings.where is Where.REGION:
            self.replan()

    def regions_layer(self) -> Shapes | Labels | None:
        """The layer whose regions are predicted."""
        return self.regions.layer()

    def _points_layer(self) -> Points | None:
        return self.points.currentData()

    def _layers_changed(self, event: object = None) -> None:
        results = {id(o.layer) for o in self._session.overlays}
        chosen = self._points_layer()
        self.points.clear()
        for layer in self._session.viewer.layers:
            if isinstance(layer, Points | Shapes | Labels):
                self._watch(layer)
            shows_results = id(layer) in results or "napari-dkan" in layer.metadata
            if isinstance(layer, Points) and not shows_results:
                self.points.addItem(layer.name, layer)
                if layer is chosen:
                    self.points.setCurrentIndex(self.points.count() - 1)
        self.replan()

    def _watch(self, layer: Layer) -> None:
        if id(layer) not in self._watched:
            self._watched.add(id(layer))
            self._links.join(self.replan, layer.events.data)
            self._links.join(self._layers_changed, layer.events.name)

    # ---- the plan --------------------------------------------------------------------

    def replan(self, event: object = None) -> None:
        self._timer.start()

    def make_plan(self) -> None:
        """Count the tiles of what is chosen and say how long they will take."""
        self.buttons[self._session.settings.where].setChecked(True)
        try:
            layers = self._points_layer(), self.regions_layer()
            self._target = target_of(self._session, *layers, self._labels)
            text = self._described(self._target)
        except DkanError as error:
            self._target, text = None, str(error)
        self.plan.setText(text)
        self.refresh()

    def _described(self, target: Target | None) -> str:
        session = self._session
        if session.slide is None or session.checkpoint is None:
            return ""
        if session.slide.pixel_size is None:
            return "Waiting for the pixel size."
        on_device = f", on {device_label(chosen_device(session.settings.device))}"
        if session.settings.where is Where.CLICK:
            waiting = " Getting ready ..." if self._ready.busy else ""
            return f"Click on tissue to predict the spot there{on_device}.{waiting}"
        if target is None and session.feature_files.of(session.slide) is not None:
            return "Reading the features ..."
        if target is None and session.slide.tissue is not None:
            return "Following the labels ..."
        if target is None:
            return "Looking for the tissue ..."
        patch = f"{session.checkpoint.patch.um:.0f} um"
        every = f", every {target.grid.pitch_um:.0f} um" if target.grid is not None else ""
        rate = session.rates.get(session.rate_key())
        time = "" if rate is None else f", about {duration(len(target) / rate)}"
        kind = "spots" if target.grid is None else "tiles"
        return f"{len(target):,} {kind} of {patch}{every}{time}{on_device}"

    def start(self) -> None:
        """Predict what the plan says, as it is now."""
        self._timer.stop()
        self.make_plan()
        if self._target is None:
            self._session.say(self.plan.text(), alarming=True)
            return
        try:
            self._maps.predict(self._target, str(self._session.settings.where).lower())
        except DkanError as error:
            self._session.say(str(error), alarming=True)

    # ---- progress --------------------------------------------------------------------

    def refresh(self) -> None:
        progress, busy = self._maps.progress, self._maps.busy
        self.cancel.setEnabled(busy)
        self.predict.setEnabled(not busy and self._target is not None)
        self.bar.setVisible(busy)
        self.state.setVisible(busy)
        failed = 0 if busy else self._maps.failed
        self.retry.setVisible(failed > 0)
        self.retry.setText(f"Try {failed:,} failed tiles again")
        if progress is None:
            return
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
        doing = {
            "starting": "starting",
            "context": "reading the slide",
            "rough": "rough map",
        }.get(progress.stage, "")
        parts = [f"{100 * progress.done // max(progress.total, 1)} %"]
        if doing:
            parts = [doing, *parts]
        if progress.rate is not None and progress.left is not None:
            parts += [f"{progress.rate:.0f} tiles/s", f"{duration(progress.left)} left"]
        self.state.setText("   ".join(parts))


def duration(seconds: float) -> str:
    """A time as a person says it: ``8 s``, ``3 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))}\u00a0s"  # a number stays with its unit
    if seconds < 5400:
        return f"{seconds / 60:.0f}\u00a0min"
    return f"{seconds / 3600:.1f}\u00a0h"
