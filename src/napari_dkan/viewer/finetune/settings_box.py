"""What to adapt, for how long, and what to hold out."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from ...training.tuning.settings import Adapt, HoldOut, TuneSettings
from ..combo import narrow
from ..folded import folded

ADAPT = {
    Adapt.auto: ("automatic", "By the number of spots: the more there are, the more may change."),
    Adapt.heads: ("heads", "Only the last layer of each gene: safest, for a few dozen spots."),
    Adapt.decoder: (
        "decoder",
        "Also how a gene's text meets a spot: for about a hundred spots and more.",
    ),
    Adapt.everything: (
        "everything",
        "Also what looks at the pixels: slowest, for several hundred spots; forgets most.",
    ),
}
HOLD_OUT = {
    HoldOut.blocks: (
        "spatial blocks",
        "Contiguous parts of each section, with a ring of unused spots around them: neighbours "
        "are alike, so spots held out at random would all but be known.",
    ),
    HoldOut.sections: (
        "whole sections",
        "The strictest test, with two ticked sections or more.",
    ),
}
NO_GENES = "New genes from a gene file..."
SECONDS, EPOCHS = "seconds", "epochs"
DEFAULT = {SECONDS: 60, EPOCHS: 30}


class SettingsBox(QWidget):
    """The choices of a run; the defaults are meant to be right."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.new_genes: Path | None = None
        self.adapt, self.hold_out, self.unit = QComboBox(), QComboBox(), QComboBox()
        self._hold_out_items = QStandardItemModel(self)
        self.hold_out.setModel(self._hold_out_items)
        _fill(self.adapt, ADAPT)
        _fill(self.hold_out, HOLD_OUT)
        self.unit.addItems([SECONDS, EPOCHS])
        self.unit.setToolTip("Learning ends after so many seconds, or after so many epochs.")
        self.amount, self.share = QSpinBox(), QSpinBox()
        self.amount.setRange(1, 86_400)
        self.amount.setValue(DEFAULT[SECONDS])
        self.amount.setToolTip("Reading the slide and the verdict come on top.")
        self.share.setRange(10, 75)
        self.share.setSingleStep(5)
        self.share.setValue(25)
        self.share.setSuffix(" %")
        self.share.setToolTip("Share of the spots that the verdict is measured on.")
        self.genes = QPushButton(NO_GENES)
        self.genes.setToolTip(
            "Genes outside the panel, described by `napari-dkan genes build`: those that the "
            "ticked sections measure join the panel."
        )
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.seed.setValue(TuneSettings().seed)
        self.seed.setToolTip("Another seed holds out other blocks.")
        self._build()
        self.adapt.activated.connect(self._told)
        self.hold_out.activated.connect(self._told)
        self.unit.activated.connect(self._unit_chosen)
        for box in (self.amount, self.share, self.seed):
            box.valueChanged.connect(self._told)
        self.genes.clicked.connect(self._choose_genes)
        self.set_sections(0)

    def _build(self) -> None:
        budget, held = QHBoxLayout(), QHBoxLayout()
        budget.addWidget(self.amount, 1)
        budget.addWidget(self.unit, 1)
        held.addWidget(self.share)
        held.addWidget(QLabel("in"))
        held.addWidget(self.hold_out, 1)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Adapt", self.adapt)
        form.addRow("For", budget)
        form.addRow("Hold out", held)
        more = QWidget()  # shown where the widget has room for it
        inside = QFormLayout(more)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addRow("Seed", self.seed)
        inside.addRow(self.genes)
        self.advanced = folded("Advanced", more)

    def settings(self) -> TuneSettings:
        """What is chosen. Raises SpotsError when a number makes no sense."""
        amount, seconds = self.amount.value(), self.unit.currentText() == SECONDS
        return TuneSettings(
            adapt=Adapt(self.adapt.currentData()),
            epochs=None if seconds else amount,
            seconds=float(amount) if seconds else None,
            hold_out=HoldOut(self.hold_out.currentData()),
            share=self.share.value() / 100,
            seed=self.seed.value(),
        )

    def set_sections(self, ticked: int) -> None:
        """Whole sections can be held out when there are several."""
        row = list(HOLD_OUT).index(HoldOut.sections)
        item = self._hold_out_items.item(row)
        item.setEnabled(ticked > 1)
        if ticked < 2 and self.hold_out.currentIndex() == row:
            self.hold_out.setCurrentIndex(0)

    def _unit_chosen(self) -> None:
        self.amount.setValue(DEFAULT[self.unit.currentText()])
        self._told()

    def _choose_genes(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Genes from `napari-dkan genes build`", "", "Gene file (*.safetensors)"
        )
        self.new_genes = Path(name) if name else None
        self.genes.setText(f"New genes from {Path(name).name}" if name else NO_GENES)
        self._told()

    def _told(self) -> None:
        for box, words in ((self.adapt, ADAPT), (self.hold_out, HOLD_OUT)):
            box.setToolTip(words[box.currentData()][1])
        self.changed.emit()


def _fill(box: QComboBox, words: dict) -> None:
    narrow(box)
    for row, (value, (name, explained)) in enumerate(words.items()):
        box.addItem(name, value)
        box.setItemData(row, explained, Qt.ItemDataRole.ToolTipRole)
    box.setToolTip(next(iter(words.values()))[1])
