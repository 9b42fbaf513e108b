"""Combo boxes that give way in a narrow panel instead of widening it."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy


def make_shrinkable(combo_box: QComboBox) -> None:
    """Let long entries be cut off in the closed box; the open list shows them whole."""
    combo_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo_box.setMinimumContentsLength(8)
    combo_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
