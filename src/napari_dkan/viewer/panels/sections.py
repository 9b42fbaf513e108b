"""Sections of the panels that stay as the user left them, also between sessions."""

from __future__ import annotations

from functools import partial

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QWidget

from ..session.user_history import load_section_states, save_section_state
from ..widgets.fold_section import FoldSection
from .help_dialog import make_help_button

TALL_SCREEN_PX = 1000  # high enough for the whole panel with the bars of a spot


def has_room_for_details() -> bool:
    """Return whether the screen is high enough to open sections that can wait."""
    screen = QGuiApplication.primaryScreen()
    return screen is not None and screen.availableGeometry().height() >= TALL_SCREEN_PX


def make_section(
    panel: str,
    title: str,
    *boxes: QWidget,
    opened: bool = False,
    topic: str = "",
    corner: QWidget | None = None,
    with_change_button: bool = False,
) -> FoldSection:
    """Make a section that remembers whether the user opened or folded it.

    Parameters
    ----------
    panel : str
        Title of the panel; with the title of the section it names the remembered state.
    title : str
    *boxes : QWidget
    opened : bool
        Until the user has chosen.
    topic : str
        Of the help button; none when empty.
    corner : QWidget or None
        Stands in the header, before the help button.
    with_change_button : bool
        See `FoldSection`.
    """
    name = f"{panel}/{title}"
    corners = [corner] if corner is not None else []
    section = FoldSection(
        title,
        *boxes,
        opened=load_section_states().get(name, opened),
        corners=[*corners, make_help_button(topic)] if topic else corners,
        with_change_button=with_change_button,
    )
    section.chosen.connect(partial(save_section_state, name))
    return section
