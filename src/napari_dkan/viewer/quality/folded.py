"""A box behind its title, for what is seldom needed."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

NO_LIMIT = 16_777_215  # Qt's own


def folded(title: str, box: QWidget) -> QCollapsible:
    """The box closed. Once open it may grow: its text gets longer while it works."""
    made = QCollapsible(title)
    made.setDuration(0)
    content, outer = made.content(), made.layout()
    inner = content.layout()
    assert outer is not None and inner is not None
    outer.setContentsMargins(0, 0, 0, 0)
    inner.addWidget(box)

    def let_grow(opened: bool) -> None:
        content.setMaximumHeight(NO_LIMIT if opened else 0)

    made.toggled.connect(let_grow)
    return made
