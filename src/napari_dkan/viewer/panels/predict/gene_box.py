"""The shown gene: search, step, pin, contrast limits and colours."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import QStringListModel, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QCompleter,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSlider,
    QToolButton,
    QWidget,
)
from superqt import QFlowLayout
from superqt.utils import signals_blocked

from ....errors import DkanError
from ....expression.panel import Gene
from ...layers.overlay_display import OverlayDisplay
from ...layers.reliability_overlay import ReliabilityOverlay
from ...layers.spread_map import SpreadMap
from ...session.shortcut_actions import set_tooltip
from ...session.viewer_session import ViewerSession
from ...widgets.qt_utils import fill_column, make_shrinkable, raise_dock
from ...widgets.signal_connections import SignalConnections
from .gene_set_box import GeneSetBox
from .histogram_box import HistogramBox
from .zero_shot_box import ZeroShotBox, zero_shot_note

# Perceptually uniform, with monotonic lightness also for colour-blind eyes.
COLORMAPS = ("magma", "viridis", "inferno", "plasma", "cividis", "gray")
MAX_MATCHES = 30
SMOOTH_LABEL = "Smooth between tiles"
HATCH_LABEL = "Hatch unreliable tiles"


class GeneBox(QWidget):
    """The current gene: search by symbol, alias or part of a name, step, pin, and colours.

    Attributes
    ----------
    display_box, more_box : QWidget
        Limits, histogram, colours and hatching; gene sets and genes by description. The owner
        places them.
    """

    def __init__(
        self,
        session: ViewerSession,
        connections: SignalConnections,
        display: OverlayDisplay,
        reliability: ReliabilityOverlay,
        spread_map: SpreadMap,
    ) -> None:
        super().__init__()
        self._session, self._display, self._reliability = session, display, reliability
        self._spread_map = spread_map
        self.search_field = QLineEdit()
        self.search_field.setPlaceholderText("symbol, old symbol or part of the name")
        self._match_model = QStringListModel()
        completer = QCompleter(self._match_model, self.search_field)
        completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        completer.setMaxVisibleItems(12)
        self.search_field.setCompleter(completer)
        self.previous_button, self.next_button = QToolButton(), QToolButton()
        self.pin_button = QToolButton()
        self.previous_button.setArrowType(Qt.ArrowType.LeftArrow)
        self.next_button.setArrowType(Qt.ArrowType.RightArrow)
        set_tooltip(
            self.search_field,
            "Symbol, old symbol or part of the name ({key})",
            "find_gene",
            connections,
        )
        set_tooltip(self.previous_button, "Previous gene ({key})", "previous_gene", connections)
        set_tooltip(self.next_button, "Next gene ({key})", "next_gene", connections)
        set_tooltip(
            self.pin_button, "Keep this gene at hand, or let it go ({key})", "pin_gene", connections
        )
        self.pin_button.setText("pin")
        self.pin_button.setCheckable(True)
        self.name_label = QLabel()
        self.name_label.setWordWrap(True)
        self.gene_set_box = GeneSetBox(session, connections)
        self.zero_shot_box = ZeroShotBox(session, connections)
        self._pinned_layout = QFlowLayout()
        self.limits_combo = QComboBox()
        self.limits_combo.addItems(["per gene", "fixed"])
        make_shrinkable(self.limits_combo)
        set_tooltip(
            self.limits_combo,
            "From which value to which the colours go ({key})",
            "limits",
            connections,
        )
        self.range_label, self._limits_row = QLabel(), QWidget()
        self.histogram_box = HistogramBox(session, connections, display)
        self.low_limit, self.high_limit = QDoubleSpinBox(), QDoubleSpinBox()
        for box in (self.low_limit, self.high_limit):
            box.setDecimals(2)
            box.setRange(-100, 100)
            box.setSingleStep(0.1)
            box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.colormap_combo = QComboBox()
        self.colormap_combo.addItems(COLORMAPS)
        self.opacity_slider = QSlider(Qt.Orientation.Horizontal)
        self.opacity_slider.setRange(5, 100)
        self.opacity_slider.setToolTip("How strongly the map covers the slide")
        self.hatch_checkbox = QCheckBox(HATCH_LABEL)
        set_tooltip(
            self.hatch_checkbox,
            "Tiles unlike those the checkpoint was trained on, or with little to go by ({key}).\n"
            "Errors are larger there, mostly where tissue gives few molecules; no gene is rated.\n"
            "Nothing is left out: the map below stays as it is. Point at a tile for the reasons.",
            "hatch",
            connections,
        )
        self.spread_checkbox = QCheckBox("Fade tiles with a large spread")
        self.spread_checkbox.setToolTip(
            "White over the map where the predictions of a tile differ most: samples of a network "
            "that draws them, else the networks of an ensemble.\n"
            "The legend says which, and from where to where. A saved .h5ad has the spread too."
        )
        self.smooth_checkbox = QCheckBox(SMOOTH_LABEL)
        self.smooth_checkbox.setToolTip(
            "Draw the map interpolated between the centres of its tiles, or in blocks.\n"
            "Values under the cursor and saved values are those of the tiles."
        )
        self.display_box, self.more_box = QWidget(), QWidget()
        self._build_layout()
        self._connect_signals(completer, connections)
        self.refresh()
        self._refresh_pinned()

    def _build_layout(self) -> None:
        ends = QHBoxLayout(self._limits_row)
        ends.setContentsMargins(0, 0, 0, 0)
        _add_widgets(ends, QLabel("from"), self.low_limit, QLabel("to"), self.high_limit)
        first = _add_widgets(
            QHBoxLayout(),
            self.search_field,
            self.previous_button,
            self.next_button,
            self.pin_button,
        )
        limits = _add_widgets(QHBoxLayout(), QLabel("Limits"), self.limits_combo, self.range_label)
        colours = _add_widgets(
            QHBoxLayout(),
            QLabel("Colours"),
            self.colormap_combo,
            QLabel("Cover"),
            self.opacity_slider,
        )
        fill_column(self, first, self.name_label, self._pinned_layout).setSpacing(4)
        fill_column(
            self.display_box,
            limits,
            self._limits_row,
            self.histogram_box,
            colours,
            self.smooth_checkbox,
            self.hatch_checkbox,
            self.spread_checkbox,
        )
        fill_column(self.more_box, self.gene_set_box, self.zero_shot_box)

    def _connect_signals(self, completer: QCompleter, connections: SignalConnections) -> None:
        session = self._session
        self.search_field.textEdited.connect(self._update_suggestions)
        self.search_field.returnPressed.connect(self._on_return_pressed)
        completer.activated.connect(self._on_suggestion_picked)
        self.previous_button.clicked.connect(lambda: session.step_gene(-1))
        self.next_button.clicked.connect(lambda: session.step_gene(1))
        self.pin_button.clicked.connect(self._on_pin_clicked)
        self.limits_combo.activated.connect(self._on_limits_mode)
        self.low_limit.editingFinished.connect(self._on_limits_edited)
        self.high_limit.editingFinished.connect(self._on_limits_edited)
        self.colormap_combo.textActivated.connect(
            lambda name: session.change_settings(colormap=name)
        )
        self.opacity_slider.valueChanged.connect(self._set_opacity)
        self.smooth_checkbox.toggled.connect(lambda on: session.change_settings(smooth_maps=on))
        self.hatch_checkbox.toggled.connect(lambda on: session.change_settings(hatch_unreliable=on))
        self.spread_checkbox.toggled.connect(lambda on: session.change_settings(show_spread=on))
        connections.connect(
            self.refresh,
            session.gene_changed,
            session.settings_changed,
            session.overlays_changed,
            session.overlay_updated,
        )
        connections.connect(self._refresh_pinned, session.pinned_changed)

    def focus_search(self) -> None:
        """Move the focus to the search field and select its text."""
        raise_dock(self)
        self.search_field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search_field.selectAll()

    def toggle_fixed_limits(self) -> None:
        """Switch between fixed limits, initially the current ones, and limits per gene."""
        self._on_limits_mode(int(self._session.settings.contrast_limits.fixed is None))

    def _update_suggestions(self, text: str) -> None:
        if (panel := self._session.gene_panel) is not None:
            matches = panel.search(text)[:MAX_MATCHES]
            self._match_model.setStringList(
                [format_gene_match(g, zero_shot_note(self._session, g.symbol)) for g in matches]
            )

    def _on_suggestion_picked(self, text: str) -> None:
        self._show_gene(text.split("  ")[0])

    def _on_return_pressed(self) -> None:
        """Show the best match of the typed text."""
        panel, text = self._session.gene_panel, self.search_field.text()
        if panel is not None and text.strip():
            matches = panel.search(text.split("  ")[0])
            self._show_gene(matches[0].symbol if matches else text)

    def _show_gene(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self._session.message.show(str(error), warning=True)
        else:
            self._session.message.clear()
        self.refresh()

    def _on_pin_clicked(self) -> None:
        if self._session.gene is not None:
            self._session.set_pinned(self._session.gene, self.pin_button.isChecked())

    def _refresh_pinned(self) -> None:
        while (item := self._pinned_layout.takeAt(0)) is not None:
            if (old := item.widget()) is not None:
                old.hide()  # it is deleted later and must not cover the new widgets
                old.deleteLater()
        self._pinned_layout.addWidget(QLabel("pinned:"))
        for symbol in self._session.pinned:
            button = QToolButton()
            button.setText(symbol)
            button.setAutoRaise(True)
            button.clicked.connect(lambda _=False, s=symbol: self._show_gene(s))
            self._pinned_layout.addWidget(button)
        self.pin_button.setChecked(self._session.gene in self._session.pinned)

    def _on_limits_mode(self, index: int) -> None:
        """Fix the current limits, or let each gene have its own; chosen again: its percentiles."""
        session, limits = self._session, self._session.settings.contrast_limits
        if index:
            limits = replace(limits, fixed=self._display.contrast_limits())
        elif limits.fixed is not None:
            limits = replace(limits, fixed=None)
        elif session.gene is not None:
            limits = limits.choose(session.gene, None)
        session.change_settings(contrast_limits=limits)

    def _on_limits_edited(self) -> None:
        if self.low_limit.value() >= self.high_limit.value():
            self._session.message.show("The lower limit must be below the upper one.", warning=True)
            self.refresh()
        elif self._session.settings.contrast_limits.fixed is not None:
            self._session.change_settings(
                contrast_limits=replace(
                    self._session.settings.contrast_limits,
                    fixed=(self.low_limit.value(), self.high_limit.value()),
                )
            )

    def _set_opacity(self, percent: int) -> None:
        """Set the opacity of existing and of future layers."""
        self._session.change_settings(opacity=percent / 100)
        for overlay in self._session.overlays:
            overlay.layer.opacity = percent / 100

    def refresh(self, event: object = None) -> None:
        """Follow gene, settings and predictions."""
        session = self._session
        panel = session.gene_panel
        for box in (self, self.display_box, self.more_box):
            box.setEnabled(panel is not None)
        if panel is None or session.gene is None:
            return
        gene = panel.genes[panel.row(session.gene)]
        if not (self.search_field.hasFocus() and self.search_field.isModified()):
            self.search_field.setText(gene.symbol)
        self.name_label.setText(
            "\n".join(t for t in (gene.name, zero_shot_note(session, gene.symbol)) if t)
        )
        self.pin_button.setChecked(gene.symbol in session.pinned)
        fixed = session.settings.contrast_limits.fixed is not None
        self.limits_combo.setCurrentIndex(int(fixed))
        low, high = self._display.drawn_limits
        self.low_limit.setValue(low)
        self.high_limit.setValue(high)
        self._limits_row.setVisible(fixed)
        is_set = gene.symbol in session.settings.contrast_limits.by_gene
        self.range_label.setText(
            ""
            if fixed or not self._display.counted_overlays()
            else f"{low:.2f} to {high:.2f}{', set' if is_set else ''}"
        )
        self.histogram_box.plot.set_limits((low, high))
        self.colormap_combo.setCurrentText(session.settings.colormap)
        with signals_blocked(self.opacity_slider):
            self.opacity_slider.setValue(round(100 * session.settings.opacity))
        # Older checkpoints have no reference for reliability.
        has_reference = session.checkpoint is not None and session.checkpoint.reference is not None
        has_reference |= any(o.reference is not None for o in session.overlays)
        self.hatch_checkbox.setVisible(has_reference)
        shown = self._display.counted_overlays()
        unreliable, scored = self._reliability.count_unreliable(shown[-1]) if shown else (0, 0)
        self.hatch_checkbox.setText(
            f"{HATCH_LABEL} ({unreliable:,} of {scored:,})" if scored else HATCH_LABEL
        )
        with signals_blocked(self.smooth_checkbox):
            self.smooth_checkbox.setChecked(session.settings.smooth_maps)
        self.spread_checkbox.setVisible(self._spread_map.is_available())
        with signals_blocked(self.spread_checkbox):
            self.spread_checkbox.setChecked(session.settings.show_spread)
        with signals_blocked(self.hatch_checkbox):
            self.hatch_checkbox.setChecked(session.settings.hatch_unreliable)


def _add_widgets(layout: QHBoxLayout, *widgets: QWidget) -> QHBoxLayout:
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def format_gene_match(gene: Gene, note: str = "") -> str:
    """Format a line of the search list."""
    if note:
        return f"{gene.symbol}  {gene.name}  [{note}]"
    also = f"  (also {', '.join(gene.aliases[:4])})" if gene.aliases else ""
    return f"{gene.symbol}  {gene.name}{also}"
