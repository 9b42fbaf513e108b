"""The gene that is shown: search, step, pin; its colours and limits."""

from __future__ import annotations

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
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

from ..errors import DkanError
from ..expression.panel import Gene
from .actions import tip
from .combo import narrow
from .display import Display
from .dock import raised
from .links import Links
from .session import Limits, Session
from .trust import Trust
from .zero_shot_box import ZeroShotBox, mark

# Perceptually uniform, and in order of lightness for colour-blind eyes too.
COLORMAPS = ("magma", "viridis", "inferno", "plasma", "cividis", "gray")
MATCHES = 30
HATCH = "Hatch unreliable tiles"


class GeneBox(QWidget):
    """Search by symbol, alias or part of a name; arrows step; pinned genes are one click away."""

    def __init__(self, session: Session, links: Links, display: Display, trust: Trust) -> None:
        super().__init__()
        self._session, self._display, self._trust = session, display, trust
        self.search = QLineEdit()
        self.search.setPlaceholderText("symbol, old symbol or part of the name")
        self._matches = QStringListModel()
        completer = QCompleter(self._matches, self.search)
        completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        completer.setMaxVisibleItems(12)
        self.search.setCompleter(completer)
        self.before, self.after, self.pin = QToolButton(), QToolButton(), QToolButton()
        self.before.setArrowType(Qt.ArrowType.LeftArrow)
        self.after.setArrowType(Qt.ArrowType.RightArrow)
        tip(self.search, "Symbol, old symbol or part of the name ({key})", "find_gene", links)
        tip(self.before, "Previous gene ({key})", "previous_gene", links)
        tip(self.after, "Next gene ({key})", "next_gene", links)
        tip(self.pin, "Keep this gene at hand, or let it go ({key})", "pin_gene", links)
        self.pin.setText("pin")
        self.pin.setCheckable(True)
        self.name = QLabel()
        self.name.setWordWrap(True)
        self.by_text = ZeroShotBox(session, links)
        self._pinned = QFlowLayout()
        self.limits = QComboBox()
        self.limits.addItems(["per gene", "fixed"])
        narrow(self.limits)
        tip(self.limits, "From which value to which the colours go ({key})", "limits", links)
        self.range, self._ends = QLabel(), QWidget()
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        for box in (self.low, self.high):
            box.setDecimals(2)
            box.setRange(-100, 100)
            box.setSingleStep(0.1)
            box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.colormap = QComboBox()
        self.colormap.addItems(COLORMAPS)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(5, 100)
        self.opacity.setToolTip("How strongly the map covers the slide")
        self.hatch = QCheckBox(HATCH)
        tip(
            self.hatch,
            "Tiles unlike those the checkpoint was trained on, or with little to go by ({key}).\n"
            "Nothing is left out: the map below stays as it is. Point at a tile for the reasons.",
            "hatch",
            links,
        )
        self._build()
        self._connect(completer, links)
        self.refresh()
        self._refresh_pinned()

    def _build(self) -> None:
        ends = QHBoxLayout(self._ends)
        ends.setContentsMargins(0, 0, 0, 0)
        _fill(ends, QLabel("from"), self.low, QLabel("to"), self.high)
        first = _fill(QHBoxLayout(), self.search, self.before, self.after, self.pin)
        limits = _fill(QHBoxLayout(), QLabel("Limits"), self.limits, self.range)
        colours = _fill(
            QHBoxLayout(), QLabel("Colours"), self.colormap, QLabel("Cover"), self.opacity
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self.name)
        layout.addWidget(self.by_text)
        layout.addLayout(self._pinned)
        layout.addLayout(limits)
        layout.addWidget(self._ends)
        layout.addLayout(colours)
        layout.addWidget(self.hatch)

    def _connect(self, completer: QCompleter, links: Links) -> None:
        session = self._session
        self.search.textEdited.connect(self._suggest)
        self.search.returnPressed.connect(self._entered)
        completer.activated.connect(self._picked)
        self.before.clicked.connect(lambda: session.step_gene(-1))
        self.after.clicked.connect(lambda: session.step_gene(1))
        self.pin.clicked.connect(self._pin)
        self.limits.activated.connect(self._limits_chosen)
        self.low.editingFinished.connect(self._limits_typed)
        self.high.editingFinished.connect(self._limits_typed)
        self.colormap.textActivated.connect(lambda name: session.change(colormap=name))
        self.opacity.valueChanged.connect(self._cover)
        self.hatch.toggled.connect(lambda on: session.change(hatch=on))
        links.join(
            self.refresh,
            session.gene_changed,
            session.settings_changed,
            session.overlays_changed,
            session.overlay_grew,
        )
        links.join(self._refresh_pinned, session.pinned_changed)

    # ---- by key ----------------------------------------------------------------------

    def find_gene(self) -> None:
        """Ready to type."""
        raised(self)
        self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.search.selectAll()

    def fix_limits(self) -> None:
        """The limits of now for all genes, or again each gene's own."""
        self._limits_chosen(int(self._session.settings.limits.fixed is None))

    # ---- searching -------------------------------------------------------------------

    def _suggest(self, text: str) -> None:
        if (panel := self._session.panel) is not None:
            found = panel.search(text)[:MATCHES]
            self._matches.setStringList(
                [described(g, mark(self._session, g.symbol)) for g in found]
            )

    def _picked(self, text: str) -> None:
        self._show(text.split("  ")[0])

    def _entered(self) -> None:
        """Return takes the best match of what is typed."""
        panel, text = self._session.panel, self.search.text()
        if panel is not None and text.strip():
            found = panel.search(text.split("  ")[0])
            self._show(found[0].symbol if found else text)

    def _show(self, symbol: str) -> None:
        try:
            self._session.set_gene(symbol)
        except DkanError as error:
            self._session.say(str(error), alarming=True)
        else:
            self._session.say("")
        self.refresh()

    # ---- pins, limits, colours -------------------------------------------------------

    def _pin(self) -> None:
        if self._session.gene is not None:
            self._session.pin(self._session.gene, self.pin.isChecked())

    def _refresh_pinned(self) -> None:
        while (item := self._pinned.takeAt(0)) is not None:
            if (old := item.widget()) is not None:
                old.hide()  # it goes with the next turn of the event loop, and must not cover us
                old.deleteLater()
        self._pinned.addWidget(QLabel("pinned:"))
        for symbol in self._session.pinned:
            button = QToolButton()
            button.setText(symbol)
            button.setAutoRaise(True)
            button.clicked.connect(lambda _=False, s=symbol: self._show(s))
            self._pinned.addWidget(button)
        self.pin.setChecked(self._session.gene in self._session.pinned)

    def _limits_chosen(self, index: int) -> None:
        self._session.change(limits=Limits(self._display.limits() if index else None))

    def _limits_typed(self) -> None:
        if self.low.value() >= self.high.value():
            self._session.say("The lower limit must be below the upper one.", alarming=True)
            self.refresh()
        elif self._session.settings.limits.fixed is not None:
            self._session.change(limits=Limits((self.low.value(), self.high.value())))

    def _cover(self, percent: int) -> None:
        """Opacity is the layers' own; set it on those that are there and for those to come."""
        self._session.change(opacity=percent / 100)
        for overlay in self._session.overlays:
            overlay.layer.opacity = percent / 100

    def refresh(self, event: object = None) -> None:
        session = self._session
        panel = session.panel
        self.setEnabled(panel is not None)
        if panel is None or session.gene is None:
            return
        gene = panel.genes[panel.row(session.gene)]
        if not (self.search.hasFocus() and self.search.isModified()):
            self.search.setText(gene.symbol)
        self.name.setText("\n".join(t for t in (gene.name, mark(session, gene.symbol)) if t))
        self.pin.setChecked(gene.symbol in session.pinned)
        fixed = session.settings.limits.fixed is not None
        self.limits.setCurrentIndex(int(fixed))
        low, high = self._display.limits()
        self.low.setValue(low)
        self.high.setValue(high)
        self._ends.setVisible(fixed)
        self.range.setText("" if fixed or not self._display.shown() else f"{low:.2f} to {high:.2f}")
        self.colormap.setCurrentText(session.settings.colormap)
        self.opacity.blockSignals(True)
        self.opacity.setValue(round(100 * session.settings.opacity))
        self.opacity.blockSignals(False)
        # an older checkpoint has nothing to judge its tiles against
        known = session.checkpoint is not None and session.checkpoint.reference is not None
        known = known or any(o.reference is not None for o in session.overlays)
        self.hatch.setVisible(known)
        shown = self._display.shown()
        few, of = self._trust.unreliable(shown[-1]) if shown else (0, 0)
        self.hatch.setText(f"{HATCH} ({few:,} of {of:,})" if of else HATCH)
        self.hatch.blockSignals(True)
        self.hatch.setChecked(session.settings.hatch)
        self.hatch.blockSignals(False)


def _fill(layout: QHBoxLayout, *widgets: QWidget) -> QHBoxLayout:
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def described(gene: Gene, note: str = "") -> str:
    """A line of the search list."""
    if note:
        return f"{gene.symbol}  {gene.name}  [{note}]"
    also = f"  (also {', '.join(gene.aliases[:4])})" if gene.aliases else ""
    return f"{gene.symbol}  {gene.name}{also}"
