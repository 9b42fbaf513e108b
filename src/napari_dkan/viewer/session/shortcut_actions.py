"""The actions of the panels, as listed in napari's shortcut editor (Preferences > Shortcuts).

One table lists all actions. A panel registers its callbacks with `register_actions` while it is
open. A key acts on the viewer in which it is pressed. Shortcuts that the user changed are kept:
the defaults apply only to actions that napari's settings do not contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.interactions import Shortcut
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.notifications import show_info

from ..widgets.qt_utils import raise_dock
from ..widgets.signal_connections import SignalConnections
from .viewer_session import ViewerSession, find_session, get_component, get_session
from .viewer_settings import PLUGIN_NAME

if TYPE_CHECKING:
    from app_model.types import KeyBinding


PREDICT_PANEL, QUALITY_PANEL, FINETUNE_PANEL, REGIONS_PANEL = (
    "DKAN: predict",
    "DKAN: quality control",
    "DKAN: fine-tune",
    "DKAN: regions",
)
FUNCTION_PREFIX = "napari_dkan_"  # napari identifies actions by the names of their functions

ActionCallback = Callable[[], Any]


@dataclass(frozen=True)
class ShortcutAction:
    """An action with a shortcut.

    Attributes
    ----------
    name : str
        Part of the id ``napari-dkan:<name>``.
    description : str
    default_key : str
        In napari's notation.
    panel : str
        The panel that has to be open.
    repeatable : bool
        Repeated while the key is held.
    hold : bool
        The callback returns an iterator that continues when the key is released.
    opens_panel : bool
        The action opens the panel.
    """

    name: str
    description: str
    default_key: str
    panel: str = PREDICT_PANEL
    repeatable: bool = False
    hold: bool = False
    opens_panel: bool = False

    @property
    def id(self) -> str:
        """Id in napari's settings."""
        return f"{PLUGIN_NAME}:{self.name}"


# No default key is one of napari's or of its layers, but for undo and redo, which a selected Labels
# layer keeps for its painting: tests/viewer/test_shortcut_actions.py.
ACTIONS = (
    ShortcutAction("undo", "Undo: regions, deleted maps, limits, pins", "Ctrl-Z"),
    ShortcutAction("redo", "Redo what was undone", "Ctrl-Shift-Z"),
    ShortcutAction("predict", "Predict where it is chosen", "Ctrl-Enter"),
    ShortcutAction("cancel", "Cancel what is being computed", "Ctrl-."),
    ShortcutAction("where_click", "Predict by clicking", "Ctrl-1"),
    ShortcutAction("where_spots", "Predict at the spots of a Points layer", "Ctrl-2"),
    ShortcutAction("where_region", "Predict in a region", "Ctrl-3"),
    ShortcutAction("where_tissue", "Predict the whole tissue", "Ctrl-4"),
    ShortcutAction("draw_region", "Draw a region", "Shift-D"),
    ShortcutAction("ruler", "Measure the pixel size with a ruler", "Shift-M"),
    ShortcutAction("next_gene", "Show the next gene", "Down", repeatable=True),
    ShortcutAction("previous_gene", "Show the previous gene", "Up", repeatable=True),
    ShortcutAction("find_gene", "Find a gene: type its name", "Ctrl-F"),
    ShortcutAction("pin_gene", "Pin the shown gene, or let it go", "N"),
    ShortcutAction("limits", "Fix the colour limits, or follow each gene", "Shift-X"),
    ShortcutAction("hatch", "Hatch unreliable tiles, or not", "H"),
    ShortcutAction("lens", "Gene lens on or off", "G"),
    ShortcutAction("why", "Why here: explain the clicked spot, or stop", "W"),
    ShortcutAction("save", "Save the results", "Shift-S"),
    ShortcutAction("figure", "Save a figure of the view", "Shift-F"),
    ShortcutAction("load_section", "Load a measured section", "Shift-O", QUALITY_PANEL),
    ShortcutAction(
        "blink",
        "The other of measured and predicted (hold: meanwhile)",
        "K",
        QUALITY_PANEL,
        hold=True,
    ),
    ShortcutAction("swipe", "Swipe between measured and predicted, or stop", "J", QUALITY_PANEL),
    ShortcutAction("side_by_side", "Maps side by side, or on the slide", "Shift-K", QUALITY_PANEL),
    ShortcutAction("report", "Write the report of the section", "Shift-R", QUALITY_PANEL),
    ShortcutAction("finetune", "Start to fine-tune", "Ctrl-Shift-Enter", FINETUNE_PANEL),
    ShortcutAction("help", "Help on the panel in front", "Shift-H"),
    ShortcutAction("compare_regions", "Compare region A with B", "Shift-B", REGIONS_PANEL),
    ShortcutAction(
        "open_regions", f"Open {REGIONS_PANEL}", "Ctrl-6", REGIONS_PANEL, opens_panel=True
    ),
    ShortcutAction("open_predict", f"Open {PREDICT_PANEL}", "Ctrl-7", opens_panel=True),
    ShortcutAction(
        "open_quality", f"Open {QUALITY_PANEL}", "Ctrl-8", QUALITY_PANEL, opens_panel=True
    ),
    ShortcutAction(
        "open_finetune", f"Open {FINETUNE_PANEL}", "Ctrl-9", FINETUNE_PANEL, opens_panel=True
    ),
)
ACTION_BY_NAME = {action.name: action for action in ACTIONS}


class ActionHandlers:
    """The callbacks of the open panels of one viewer, by action name."""

    def __init__(self, session: ViewerSession) -> None:
        self.by_action: dict[str, list[ActionCallback]] = {}


def register_actions(viewer: ViewerModel, **callbacks: ActionCallback) -> Callable[[], None]:
    """Register callbacks of a panel.

    Parameters
    ----------
    viewer : ViewerModel
    **callbacks : callable
        By action name.

    Returns
    -------
    callable
        Unregisters the callbacks.

    Raises
    ------
    KeyError
        For an unknown action.
    """
    register_with_napari()
    handlers = get_component(get_session(viewer), ActionHandlers).by_action
    for name, callback in callbacks.items():
        handlers.setdefault(ACTION_BY_NAME[name].name, []).append(callback)

    def unregister() -> None:
        for name, callback in callbacks.items():
            if callback in handlers[name]:
                handlers[name].remove(callback)

    return unregister


def run_action(viewer: ViewerModel, action: ShortcutAction) -> Iterator[None]:
    """Run an action in a viewer; if its panel is closed, show which panel it needs.

    Does nothing in a viewer that never had one of the panels.
    """
    session = find_session(viewer)
    handlers = None if session is None else session.components.get(ActionHandlers)
    callbacks = []
    if isinstance(handlers, ActionHandlers):
        callbacks = list(handlers.by_action.get(action.name, ()))
    if handlers is not None and not callbacks:
        show_info(f"{action.description}: open Plugins > {action.panel} first.")
    results = [callback() for callback in callbacks]
    for result in results:
        if action.hold and result is not None:
            yield from result


def register_with_napari() -> None:
    """Register all actions with napari, once; shortcuts of the user are kept."""
    if ACTIONS[0].id in action_manager._actions:
        return
    for action in ACTIONS:
        action_manager.register_action(
            action.id,
            _make_command(action),
            f"DKAN: {action.description}",
            ViewerModel,
            action.repeatable,
        )
    bind_shortcuts()
    get_settings().shortcuts.events.shortcuts.connect(bind_shortcuts)


def bind_shortcuts(event: object = None) -> None:
    """Bind the keys of the settings, or the defaults.

    napari has no default keys for actions of plugins. When one key is edited, it saves the keys of
    all actions. The defaults are removed from its settings again, because napari warns at the next
    start of actions that are not registered yet.
    """
    settings = get_settings().shortcuts
    unchanged = {
        a.id for a in ACTIONS if settings.shortcuts.get(a.id) == [coerce_keybinding(a.default_key)]
    }
    if unchanged:
        edited = {n: keys for n, keys in settings.shortcuts.items() if n not in unchanged}
        settings.shortcuts = edited  # calls this function again
        return
    for action in ACTIONS:
        keys, bound = get_shortcuts(action.name), action_manager._shortcuts.get(action.id, [])
        if [coerce_keybinding(key) for key in bound] != keys:
            action_manager.unbind_shortcut(action.id)
            for key in keys:
                action_manager.bind_shortcut(action.id, key)


def get_shortcuts(name: str) -> list[KeyBinding]:
    """Return the current keys of an action."""
    action = ACTION_BY_NAME[name]
    default = [coerce_keybinding(action.default_key)]
    return list(get_settings().shortcuts.shortcuts.get(action.id, default))


def shortcut_label(name: str) -> str:
    """Format the keys of an action as ``G`` or ``Ctrl+Enter``; empty if it has none."""
    return " or ".join(Shortcut(key).platform for key in get_shortcuts(name))


def set_tooltip(widget: Any, text: str, name: str, connections: SignalConnections) -> None:
    """Set a tooltip with the current keys of an action in place of ``{key}``."""

    def update() -> None:
        keys = shortcut_label(name)
        widget.setToolTip(text.replace(" ({key})", f" ({keys})" if keys else ""))

    update()
    connect_shortcut_changes(update, connections, name)


def connect_shortcut_changes(
    callback: Callable[[], None], connections: SignalConnections, *names: str
) -> None:
    """Call ``callback`` when the keys of one of these actions have changed."""
    ids = {ACTION_BY_NAME[name].id for name in names}

    def on_shortcut_changed(event: Any) -> None:
        if event.name in ids:
            callback()

    register_with_napari()
    connections.connect(on_shortcut_changed, action_manager.events.shortcut_changed)


def _make_command(action: ShortcutAction) -> Callable[..., Any]:
    def press(viewer: ViewerModel) -> None:
        for _ in run_action(viewer, action):
            pass

    def hold(viewer: ViewerModel) -> Iterator[None]:
        yield from run_action(viewer, action)

    def open_panel(viewer: ViewerModel) -> None:
        open_panel_dock(viewer, action.panel)

    command: Callable[..., Any] = (
        open_panel if action.opens_panel else hold if action.hold else press
    )
    command.__name__ = FUNCTION_PREFIX + action.name  # by which napari finds repeatable actions
    return command


def open_panel_dock(viewer: Any, panel: str) -> None:
    """Open a panel of this viewer, or bring it to the front."""
    window = getattr(viewer, "window", None)
    if window is None:
        return
    docked = window.dock_widgets
    widget = next((w for name, w in docked.items() if name.startswith(panel)), None)
    if widget is None:
        _, widget = window.add_plugin_dock_widget(PLUGIN_NAME, panel)
    raise_dock(widget)


GENE_STEPS = {"napari:increment_dims_left": -1, "napari:increment_dims_right": 1}


class ArrowKeyBindings:
    """Left and right step through the genes while the panel of a viewer is open."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._keys: list[Any] = []
        connections.connect(self._bind_keys, get_settings().shortcuts.events.shortcuts)
        self._bind_keys()

    def close(self) -> None:
        """Unbind the keys."""
        for key in self._keys:
            self._session.viewer.bind_key(key, None)
        self._keys = []

    def _bind_keys(self, event: object = None) -> None:
        self.close()
        for name, step in GENE_STEPS.items():
            for key in get_settings().shortcuts.shortcuts.get(name, []):
                self._session.viewer.bind_key(
                    key, self._make_step_function(name, step), overwrite=True
                )
                self._keys.append(key)

    def _make_step_function(self, name: str, step: int) -> Callable[[Any], None]:
        def step_gene(viewer: Any) -> None:
            if viewer.dims.ndim > 2:
                action_manager.trigger(name)
            else:
                self._session.step_gene(step)

        return step_gene
