"""Box for the fine-tuning settings: trainable part, budget and hold-out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QWidget,
)

from ....training.finetuning.finetune_settings import AdaptScope, FinetuneSettings, HoldOutUnit
from ...session.shortcut_actions import FINETUNE_PANEL
from ...widgets.qt_utils import make_row, make_shrinkable
from ..sections import make_section

ADAPT_LABELS = {
    AdaptScope.auto: (
        "automatic",
        "By the number of spots: the more there are, the more may change.",
    ),
    AdaptScope.plain: (
        "closed form only",
        "Level and spread of the genes and a ridge regression beside the checkpoint: in seconds. "
        "The other choices try these as well, and keep what is best on the training spots.",
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
    """Settings of a run."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.new_genes_path: Path | None = None
        self.adapt_combo, self.hold_out_combo = QComboBox(), QComboBox()
        self.unit_combo = QComboBox()
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
        budget = make_row((self.budget_spin, 1), (self.unit_combo, 1))
        hold_out = make_row(self.hold_out_spin, QLabel("in"), (self.hold_out_combo, 1))
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Adapt", self.adapt_combo)
        form.addRow("For", budget)
        form.addRow("Hold out", hold_out)
        advanced = QWidget()
        advanced_form = QFormLayout(advanced)
        advanced_form.setContentsMargins(0, 0, 0, 0)
        advanced_form.addRow("Seed", self.seed_spin)
        advanced_form.addRow(self.new_genes_button)
        # Placed by the widget.
        self.advanced_options = make_section(FINETUNE_PANEL, "Advanced", advanced)

    def tune_settings(self) -> FinetuneSettings:
        """Return the chosen settings.

        Raises
        ------
        SpotsError
            A value is not valid.
        """
        amount, is_seconds = self.budget_spin.value(), self.unit_combo.currentText() == SECONDS
        return FinetuneSettings(
            adapt=AdaptScope(self.adapt_combo.currentData()),
            epochs=None if is_seconds else amount,
            seconds=float(amount) if is_seconds else None,
            hold_out=HoldOutUnit(self.hold_out_combo.currentData()),
            share=self.hold_out_spin.value() / 100,
            seed=self.seed_spin.value(),
        )

    def set_section_count(self, n_sections: int) -> None:
        """Offer to hold out whole sections if there are several."""
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
        adapt, hold_out = self.adapt_combo.currentData(), self.hold_out_combo.currentData()
        self.adapt_combo.setToolTip(ADAPT_LABELS[adapt][1])
        self.hold_out_combo.setToolTip(HOLD_OUT_LABELS[hold_out][1])
        self.changed.emit()


def _fill_combo(combo_box: QComboBox, labels: Mapping[Any, tuple[str, str]]) -> None:
    """Add names with their tooltips by value."""
    make_shrinkable(combo_box)
    for row, (value, (name, tooltip)) in enumerate(labels.items()):
        combo_box.addItem(name, value)
        combo_box.setItemData(row, tooltip, Qt.ItemDataRole.ToolTipRole)
    combo_box.setToolTip(next(iter(labels.values()))[1])
