"""Box for the fine-tuning settings: trainable part, budget and hold-out."""

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

from ....training.finetuning.finetune_settings import AdaptScope, FinetuneSettings, HoldOutUnit
from ...widgets.qt_utils import make_collapsible, make_shrinkable

ADAPT_LABELS = {
    AdaptScope.auto: (
        "automatic",
        "By the number of spots: the more there are, the more may change.",
    ),
    AdaptScope.heads: ("heads", "Only the last layer of each gene: safest, for a few dozen spots."),
    AdaptScope.decoder: (
        "decoder",
        "Also how a gene's text meets a spot: for about a hundred spots and more.",
    ),
    AdaptScope.everything: (
        "everything",
        "Also what looks at the pixels: slowest, for several hundred spots; forgets most.",
    ),
}
HOLD_OUT_LABELS = {
    HoldOutUnit.blocks: (
        "spatial blocks",
        "Contiguous parts of each section, with a ring of unused spots around them: neighbours "
        "are alike, so spots held out at random would all but be known.",
    ),
    HoldOutUnit.sections: (
        "whole sections",
        "The strictest test, with two ticked sections or more.",
    ),
}
NEW_GENES_LABEL = "New genes from a gene file..."
SECONDS, EPOCHS = "seconds", "epochs"
DEFAULT_BUDGET = {SECONDS: 60, EPOCHS: 30}


class FinetuneSettingsBox(QWidget):
    """The choices of a run; the defaults are meant to be right."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.new_genes_path: Path | None = None
        self.adapt_combo, self.hold_out_combo, self.unit_combo = (
            QComboBox(),
            QComboBox(),
            QComboBox(),
        )
        self._hold_out_items = QStandardItemModel(self)
        self.hold_out_combo.setModel(self._hold_out_items)
        _fill_combo(self.adapt_combo, ADAPT_LABELS)
        _fill_combo(self.hold_out_combo, HOLD_OUT_LABELS)
        self.unit_combo.addItems([SECONDS, EPOCHS])
        self.unit_combo.setToolTip("Learning ends after so many seconds, or after so many epochs.")
        self.budget_spin, self.hold_out_spin = QSpinBox(), QSpinBox()
        self.budget_spin.setRange(1, 86_400)
        self.budget_spin.setValue(DEFAULT_BUDGET[SECONDS])
        self.budget_spin.setToolTip("Reading the slide and the verdict come on top.")
        self.hold_out_spin.setRange(10, 75)
        self.hold_out_spin.setSingleStep(5)
        self.hold_out_spin.setValue(25)
        self.hold_out_spin.setSuffix(" %")
        self.hold_out_spin.setToolTip("Share of the spots that the verdict is measured on.")
        self.new_genes_button = QPushButton(NEW_GENES_LABEL)
        self.new_genes_button.setToolTip(
            "Genes outside the panel, described by `napari-dkan genes build`: those that the "
            "ticked sections measure join the panel."
        )
        self.seed_spin = QSpinBox()
        self.seed_spin.setRange(0, 999_999)
        self.seed_spin.setValue(FinetuneSettings().seed)
        self.seed_spin.setToolTip("Another seed holds out other blocks.")
        self._build()
        self.adapt_combo.activated.connect(self._on_changed)
        self.hold_out_combo.activated.connect(self._on_changed)
        self.unit_combo.activated.connect(self._on_unit_chosen)
        for box in (self.budget_spin, self.hold_out_spin, self.seed_spin):
            box.valueChanged.connect(self._on_changed)
        self.new_genes_button.clicked.connect(self._ask_gene_file)
        self.set_section_count(0)

    def _build(self) -> None:
        budget, held = QHBoxLayout(), QHBoxLayout()
        budget.addWidget(self.budget_spin, 1)
        budget.addWidget(self.unit_combo, 1)
        held.addWidget(self.hold_out_spin)
        held.addWidget(QLabel("in"))
        held.addWidget(self.hold_out_combo, 1)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Adapt", self.adapt_combo)
        form.addRow("For", budget)
        form.addRow("Hold out", held)
        more = QWidget()  # shown where the widget has room for it
        inside = QFormLayout(more)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addRow("Seed", self.seed_spin)
        inside.addRow(self.new_genes_button)
        self.advanced_options = make_collapsible("Advanced", more)

    def tune_settings(self) -> FinetuneSettings:
        """What is chosen. Raises SpotsError when a number makes no sense."""
        amount, seconds = self.budget_spin.value(), self.unit_combo.currentText() == SECONDS
        return FinetuneSettings(
            adapt=AdaptScope(self.adapt_combo.currentData()),
            epochs=None if seconds else amount,
            seconds=float(amount) if seconds else None,
            hold_out=HoldOutUnit(self.hold_out_combo.currentData()),
            share=self.hold_out_spin.value() / 100,
            seed=self.seed_spin.value(),
        )

    def set_section_count(self, n_sections: int) -> None:
        """Whole sections can be held out when there are several."""
        row = list(HOLD_OUT_LABELS).index(HoldOutUnit.sections)
        item = self._hold_out_items.item(row)
        item.setEnabled(n_sections > 1)
        if n_sections < 2 and self.hold_out_combo.currentIndex() == row:
            self.hold_out_combo.setCurrentIndex(0)

    def _on_unit_chosen(self) -> None:
        self.budget_spin.setValue(DEFAULT_BUDGET[self.unit_combo.currentText()])
        self._on_changed()

    def _ask_gene_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Genes from `napari-dkan genes build`", "", "Gene file (*.safetensors)"
        )
        self.new_genes_path = Path(name) if name else None
        self.new_genes_button.setText(
            f"New genes from {Path(name).name}" if name else NEW_GENES_LABEL
        )
        self._on_changed()

    def _on_changed(self) -> None:
        for box, words in (
            (self.adapt_combo, ADAPT_LABELS),
            (self.hold_out_combo, HOLD_OUT_LABELS),
        ):
            box.setToolTip(words[box.currentData()][1])
        self.changed.emit()


def _fill_combo(box: QComboBox, labels: dict) -> None:
    make_shrinkable(box)
    for row, (value, (name, explained)) in enumerate(labels.items()):
        box.addItem(name, value)
        box.setItemData(row, explained, Qt.ItemDataRole.ToolTipRole)
    box.setToolTip(next(iter(labels.values()))[1])
