"""Box with the result of fine-tuning: verdict, gene table and choice of the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QWidget,
)

from ....errors import DkanError
from ....training.finetuning.tuning_protocol import FinetuneFinished
from ...session.viewer_session import ViewerSession
from ...widgets.metrics_table import (
    MetricColumn,
    MetricsTable,
    MetricsTableData,
    make_metric_column,
)
from ...widgets.qt_utils import fill_column, make_text_label
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import SUCCESS_COLOR, WARNING_COLOR, set_text_color
from .checkpoint_store import suggest_save_path
from .finetune_controller import FinetuneController, FinetuneState

COLUMN_TOOLTIPS = {
    "before": "Correlation with the measured labels on the held-out spots, before",
    "after": "The same after fine-tuning",
    "gain": "After minus before",
    "ridge": "The same of a ridge baseline that learnt from the same spots",
}
BESIDE_DEPTH = " (depth-partial: the number of molecules of each spot regressed out)"
CEILING_TOOLTIP = "What a perfect prediction could reach on these spots, given the counting noise"
NOT_JUDGED = (
    "Cannot be judged here: its counts on the held-out spots are too few to tell a good "
    "prediction from a bad one."
)
NOT_RECORDED = "depth-partial PCC: not recorded in this report"


class FinetuneResultBox(QWidget):
    """Result of a run; hidden until there is one."""

    def __init__(
        self, session: ViewerSession, controller: FinetuneController, connections: SignalConnections
    ) -> None:
        super().__init__()
        self._session, self._controller = session, controller
        self._displayed_result: FinetuneFinished | None = None  # in the table
        self.verdict_label = make_text_label(selectable=True)
        self.other_sections_label = make_text_label(selectable=True)
        font = self.verdict_label.font()
        font.setPointSizeF(1.25 * font.pointSizeF())
        font.setBold(True)
        self.verdict_label.setFont(font)
        self.search_field = QLineEdit()
        self.search_field.setPlaceholderText("search a gene")
        self.search_field.setClearButtonEnabled(True)
        self.table = MetricsTable()
        self.table.setMinimumHeight(220)
        self.tuned_radio, self.parent_radio = QRadioButton(), QRadioButton()
        self._group = QButtonGroup(self)
        self.save_button = QPushButton("Save as...")
        self.save_button.setToolTip(
            "A file of your own; it is chosen from there and stays in the list."
        )
        self._build()
        self._group.buttonClicked.connect(
            lambda b: controller.choose_checkpoint(b is self.tuned_radio)
        )
        self.save_button.clicked.connect(self._ask_save_path)
        self.search_field.textChanged.connect(self.table.table_model.set_filter)
        self.table.symbol_selected.connect(session.set_gene)
        connections.connect(self.refresh, controller.changed)
        connections.connect(self._mark_current_checkpoint, session.checkpoint_changed)
        connections.connect(lambda: self.table.select_symbol(session.gene), session.gene_changed)
        self.refresh()

    def _build(self) -> None:
        self._checkpoint_choice, self._table_panel = QWidget(), QWidget()
        for button in (self.tuned_radio, self.parent_radio):
            self._group.addButton(button)
        fill_column(
            self._checkpoint_choice,
            QLabel("Use this checkpoint"),
            self.tuned_radio,
            self.parent_radio,
        )
        fill_column(self._table_panel, self.search_field, self.table)
        fill_column(
            self,
            self.verdict_label,
            self.other_sections_label,
            self._checkpoint_choice,
            self.save_button,
            self._table_panel,
        )

    def refresh(self) -> None:
        controller = self._controller
        result, parent = controller.result, controller.parent_checkpoint
        path = controller.checkpoint_path
        is_unsaved = controller.state is FinetuneState.UNSAVED
        has_checkpoint = (
            not controller.busy and path is not None and controller.tuned_checkpoint is not None
        )
        self.setVisible(result is not None or is_unsaved or has_checkpoint)
        self.save_button.setVisible(is_unsaved or has_checkpoint)
        self._checkpoint_choice.setVisible(has_checkpoint)
        self._table_panel.setVisible(result is not None)
        self.verdict_label.setVisible(result is not None)
        if path is not None and parent is not None:
            self.tuned_radio.setText(f"fine-tuned: {path.stem}")
            self.tuned_radio.setToolTip(str(path))
            self.parent_radio.setText(f"before: {parent.title}")
        self._mark_current_checkpoint()
        if result is None:
            self.other_sections_label.setText("")
            self.other_sections_label.hide()
            return
        self.verdict_label.setText(result.verdict[:1].upper() + result.verdict[1:])
        set_text_color(self.verdict_label, SUCCESS_COLOR if result.better else WARNING_COLOR)
        self.other_sections_label.setText(_describe_report(result.report))
        self.other_sections_label.setVisible(bool(self.other_sections_label.text()))
        if result is not self._displayed_result:
            self._displayed_result = result
            self.table.set_table_data(make_finetune_table(result.report), sort_by=3)
            self.table.select_symbol(self._session.gene)

    def _mark_current_checkpoint(self) -> None:
        """Mark the checkpoint in use; none of the two if a third one is."""
        controller, current = self._controller, self._session.checkpoint
        self._group.setExclusive(False)
        for radio, checkpoint in (
            (self.tuned_radio, controller.tuned_checkpoint),
            (self.parent_radio, controller.parent_checkpoint),
        ):
            radio.setChecked(current is not None and current is checkpoint)
        self._group.setExclusive(True)

    def _ask_save_path(self) -> None:
        source, parent = self._controller.checkpoint_path, self._controller.parent_checkpoint
        if source is None or parent is None or parent.path is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self,
            "Save the fine-tuned checkpoint",
            str(suggest_save_path(parent.path, source)),
            "DKAN checkpoint (*.safetensors)",
        )
        if name:
            self.save_as(Path(name))

    def save_as(self, path: Path) -> None:
        """Save under this name; a failure is shown in the panel."""
        if path.suffix != ".safetensors":
            path = path.with_name(f"{path.name}.safetensors")
        try:
            self._controller.save_as(path)
        except DkanError as error:
            self._controller.message_changed.emit(str(error), True)


def _describe_report(report: dict[str, Any]) -> str:
    """Describe shallow sections, the other sections, and what an older report lacks."""
    shallow = [f"{name}: {text}" for name, text in report.get("shallow", {}).items()]
    recorded = "" if report.get("per_gene_depth_partial") else NOT_RECORDED
    return "\n".join(t for t in (*shallow, recorded, describe_other_sections(report)) if t)


def make_finetune_table(report: dict[str, Any]) -> MetricsTableData:
    """Make a table of the depth-partial PCC of every gene before, after and by ridge.

    A report without it gives a table of the plain PCC. Genes that joined the panel, and genes
    that cannot be judged, have a note.
    """
    plain = {str(g["symbol"]): g for g in report.get("genes", [])}
    new = report.get("new_genes", {})
    plain |= new.get("per_gene_pcc", {})
    partial = {
        **report.get("per_gene_depth_partial", {}),
        **new.get("per_gene_depth_partial", {}),
    }
    notes = tuple(_describe_gene(symbol, new, partial) for symbol in plain)
    if not partial:
        return MetricsTableData(tuple(plain), _make_pcc_columns(plain), notes)
    genes = {symbol: partial.get(symbol, {}) for symbol in plain}
    columns = (
        *_make_pcc_columns(genes, BESIDE_DEPTH),
        make_metric_column("ceiling", CEILING_TOOLTIP, [g.get("ceiling") for g in genes.values()]),
        *(
            make_metric_column(
                f"PCC {when}",
                f"{COLUMN_TOOLTIPS[when]}, depth included",
                [g.get(when) for g in plain.values()],
            )
            for when in ("before", "after")
        ),
    )
    return MetricsTableData(tuple(genes), columns, notes)


def _make_pcc_columns(genes: dict[str, dict[str, Any]], kind: str = "") -> tuple[MetricColumn, ...]:
    """Make the columns before, after, gain and ridge; cells of genes not judged are tinted."""
    before, after, ridge = (
        [g.get(key) for g in genes.values()] for key in ("before", "after", "ridge")
    )
    gains = [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
    not_judged = np.array([g.get("judged") is False for g in genes.values()], bool)
    values = {"before": before, "after": after, "gain": gains, "ridge": ridge}
    return tuple(
        make_metric_column(
            name,
            COLUMN_TOOLTIPS[name] + kind,
            column,
            "+.3f" if name == "gain" else ".2f",
            not_judged,
            NOT_JUDGED,
        )
        for name, column in values.items()
    )


def _describe_gene(symbol: str, new: dict[str, Any], partial: dict[str, Any]) -> str:
    notes = []
    if symbol in new.get("per_gene_pcc", {}):
        notes.append("new in the panel; before: by its text")
    if partial.get(symbol, {}).get("judged") is False:
        notes.append(NOT_JUDGED)
    return "\n".join(notes)


def describe_other_sections(report: dict[str, Any]) -> str:
    """Describe the change on sections that were not used for training."""
    changes, others = [], report.get("others", {}).items()
    figure, title = "depth_partial", "Depth-partial PCC"
    if not all("depth_partial_before" in change for _, change in others):
        figure, title = "pcc_all", "PCC-ALL"
    for name, change in others:
        pair = [change.get(f"{figure}_{when}") for when in ("before", "after")]
        before, after = ("none" if v is None else f"{v:.2f}" for v in pair)
        changes.append(f"{name} {before} -> {after}")
    return f"{title} on sections not trained on: {', '.join(changes)}" if changes else ""
