"""Combo boxes that give way in a narrow panel instead of widening it."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy


def narrow(box: QComboBox) -> None:
    """Let long entries be cut off in the closed box; the open list shows them whole."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
