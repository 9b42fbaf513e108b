"""Shortcuts: all actions are in napari's shortcut editor and can be changed there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari._app_model import get_app_model
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from napari._qt.widgets.qt_keyboard_settings import ShortcutEditor
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points, Shapes, Surface, Tracks, Vectors
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.interactions import Shortcut
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.notifications import notification_manager
from napari.utils.shortcuts import default_shortcuts

from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
from napari_dkan.viewer.session import shortcut_actions as actions
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from collections.abc import Callable


LAYERS = Image, Labels, Points, Shapes, Surface, Tracks, Vectors
DOCS = Path(__file__).resolve().parents[2] / "docs" / "keys.md"


@pytest.fixture(autouse=True)
def default_keys():
    yield
    settings = get_settings().shortcuts
    ours = {action.id for action in actions.ACTIONS}
    settings.shortcuts = {n: k for n, k in settings.shortcuts.items() if n not in ours}


@pytest.fixture
def editor(make_panel: Callable[..., PredictWidget], qtbot):
    """The real one, in the real dialog; its table as {action: row}."""
    panel = make_panel()
    dialog = PreferencesDialog(panel.session.viewer.window._qt_window)
    qtbot.addWidget(dialog)
    made = dialog.findChild(ShortcutEditor)
    table = made._table
    made.rows = {table.item(r, made._action_col).text(): r for r in range(table.rowCount())}
    made.dialog, made.panel = dialog, panel
    yield made
    dialog.reject()


def type_key(editor: ShortcutEditor, name: str, key: str) -> None:
    row = editor.rows[f"napari-dkan:{name}"]
    editor._table.item(row, editor._shortcut_col).setText(key)


def press(viewer, key: str) -> None:
    handler = viewer.window._qt_viewer._key_map_handler
    handler.press_key(coerce_keybinding(key))
    handler.release_key(coerce_keybinding(key))


def test_default_keys_are_unique():
    actions.register_with_napari()
    taken = Counter(str(coerce_keybinding(a.default_key)) for a in actions.ACTIONS)
    assert max(taken.values()) == 1
    theirs = {str(k) for kind in (*LAYERS, ViewerModel) for k in _own(kind)}
    theirs |= {str(k) for keys in default_shortcuts.values() for k in keys}
    theirs |= {str(rule.keybinding) for rule in get_app_model().keybindings}
    painting = {
        str(coerce_keybinding(actions.ACTION_BY_NAME[n].default_key)) for n in ("undo", "redo")
    }
    of_labels = {str(k) for k in Labels.class_keymap}
    of_others = {
        str(k) for kind in (*LAYERS, ViewerModel) if kind is not Labels for k in _own(kind)
    }
    # Undo and redo of painting stay with a selected Labels layer: test_undo.py.
    assert painting <= of_labels and not painting & of_others
    assert len(theirs) > 60 and theirs & set(taken) == painting
    assert all(Shortcut(a.default_key).platform for a in actions.ACTIONS)  # napari can show them


def _own(kind) -> list:
    return [k for k, f in kind.class_keymap.items() if actions.FUNCTION_PREFIX not in f.__name__]


def test_shortcut_editor_lists_and_changes_all_actions(editor):
    table, panel = editor._table, editor.panel
    for action in actions.ACTIONS:
        row = editor.rows[action.id]
        assert table.item(row, editor._action_name_col).text() == f"DKAN: {action.description}"
        shown = table.item(row, editor._shortcut_col).text()
        assert shown == Shortcut(action.default_key).platform == actions.shortcut_label(action.name)

    viewer, session, hatch = panel.session.viewer, panel.session, panel.gene_box.hatch_checkbox
    press(viewer, "H")
    assert not session.settings.hatch_unreliable and "(H)" in hatch.toolTip()
    type_key(editor, "hatch", "U")
    press(viewer, "H")
    assert not session.settings.hatch_unreliable and "(U)" in hatch.toolTip()
    press(viewer, "U")
    assert session.settings.hatch_unreliable
    kept = get_settings().shortcuts.shortcuts
    ours = {name: keys for name, keys in kept.items() if name.startswith("napari-dkan:")}
    assert ours == {"napari-dkan:hatch": [coerce_keybinding("U")]}  # and no default of ours

    type_key(editor, "limits", "")
    press(viewer, "Shift-X")
    assert session.settings.contrast_limits.fixed is None
    assert "(" not in panel.gene_box.limits_combo.toolTip()

    panel.shut_down()
    again = PredictWidget(viewer)  # opening a panel binds nothing over it
    press(viewer, "U")
    press(viewer, "Shift-X")
    assert not session.settings.hatch_unreliable and session.settings.contrast_limits.fixed is None
    again.shut_down()
    editor.dialog.reject()  # Cancel
    assert (
        actions.shortcut_label("hatch") == "H"
        and actions.shortcut_label("limits") == Shortcut("Shift-X").platform
    )
    type_key(editor, "hatch", "U")
    editor._reset_shortcuts()
    assert actions.shortcut_label("hatch") == "H"


def test_shortcuts_run_their_actions(panel: PredictWidget, until):
    viewer, session = panel.session.viewer, panel.session
    first = session.gene
    for key, step in (("Down", 1), ("Right", 1), ("Up", -1), ("Left", -1)):
        before = session.gene_panel.symbols.index(session.gene)
        press(viewer, key)
        assert session.gene_panel.symbols.index(session.gene) == (before + step) % len(
            session.gene_panel
        )
    assert session.gene == first
    press(viewer, "N")
    assert first not in session.pinned
    press(viewer, "Shift-X")
    assert session.settings.contrast_limits.fixed is not None
    press(viewer, "Ctrl-4")
    assert session.settings.target_mode is TargetMode.TISSUE
    until(lambda: panel.target_box.target is not None)
    press(viewer, "Ctrl-Enter")
    assert panel.prediction_jobs.busy
    press(viewer, "Ctrl-.")
    until(lambda: not panel.prediction_jobs.busy)
    press(viewer, "Ctrl-3")
    assert panel.target_box.regions_layer() is not None
    assert viewer.layers.selection.active.mode == "add_polygon_lasso"


def test_arrow_keys_step_through_stacks_and_panels_open_once(
    make_panel: Callable[..., PredictWidget],
):
    panel = make_panel()
    viewer, gene = panel.session.viewer, panel.session.gene
    viewer.add_image(np.zeros((4, 5, 6)))
    viewer.dims.set_current_step(0, 0)
    press(viewer, "Right")
    assert viewer.dims.current_step[0] == 1 and panel.session.gene == gene
    press(viewer, "Down")
    assert panel.session.gene != gene

    for key in ("Ctrl-8", "Ctrl-8", "Ctrl-7"):  # a panel that is open is not opened again
        press(viewer, key)
    docked = {n: w for n, w in viewer.window.dock_widgets.items() if n.startswith("DKAN")}
    assert sum(n.startswith(actions.PREDICT_PANEL) for n in docked) == 1 and len(docked) == 2
    quality = next(w for n, w in docked.items() if n.startswith(actions.QUALITY_PANEL))
    quality.shut_down()
    quality.quality.close()


def test_actions_belong_to_a_viewer_and_name_a_closed_panel(
    make_panel: Callable[..., PredictWidget], make_napari_viewer
):
    one, other = make_panel(), make_panel()
    press(one.session.viewer, "Shift-X")
    assert (
        one.session.settings.contrast_limits.fixed
        and not other.session.settings.contrast_limits.fixed
    )

    told = []
    notification_manager.notification_ready.connect(told.append)
    try:
        one.shut_down()
        press(one.session.viewer, "G")
        press(make_napari_viewer(), "G")  # a viewer that none of this is about
    finally:
        notification_manager.notification_ready.disconnect(told.append)
    assert [n.message for n in told] == ["Gene lens on or off: open Plugins > DKAN: predict first."]


def test_documented_shortcuts_are_the_table():
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    told = [(key, does) for key, does in rows if does not in ("does", "---")]
    assert told == [
        (f"`{a.default_key.replace('-', '+')}`", a.description) for a in actions.ACTIONS
    ]


def test_unknown_action_raises():
    with pytest.raises(KeyError):
        actions.register_actions(ViewerModel(), fly=print)
    assert "napari-dkan:lens" in action_manager._actions
