"""Slides that are open in other ways: other readers, two slides; names in menus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QMenu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtpy.QtGui import QAction


def menu_actions(menu: QMenu) -> Iterator[QAction]:
    """All actions of a menu and its submenus, as they are when it is shown."""
    menu.aboutToShow.emit()
    for action in menu.actions():
        yield action
        inner = action.menu()
        if isinstance(inner, QMenu):
            yield from menu_actions(inner)


def test_names_in_menus_are_shown_as_they_are_written(make_panel) -> None:
    """Qt takes the letter after an ampersand as a shortcut and hides the ampersand."""
    bar = make_panel().session.viewer.window._qt_window.menuBar()
    texts = {
        action.text()
        for top in bar.actions()
        if isinstance(top.menu(), QMenu)
        for action in menu_actions(top.menu())
    }
    ours = {text for text in texts if "dkan" in text.lower() or "section" in text.lower()}
    assert "DKAN: predict" in "".join(ours)
    assert any("gene expression from histology" in text for text in ours), ours
    assert {text for text in ours if "&" in text.replace("&&", "")} == set()
