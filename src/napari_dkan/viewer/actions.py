"""Every action of the panels, as napari's shortcut editor lists it (Preferences > Shortcuts).

One table says what there is. A panel says how it does it, with `answer`, for as long as it is
open; the key acts on the viewer it is pressed in. What a person changes in the editor stays:
defaults hold only for actions that napari's settings know nothing about.
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

from .companions import companion
from .dock import raised
from .session import Session, session_if_any, session_of

if TYPE_CHECKING:
    from app_model.types import KeyBinding

    from .links import Links

PLUGIN = "napari-dkan"
PREDICT, QUALITY, FINETUNE = "DKAN: predict", "DKAN: quality control", "DKAN: fine-tune"
CALLED = "napari_dkan_"  # before the names of the functions, which napari tells actions apart by

Answer = Callable[[], Any]


@dataclass(frozen=True)
class Action:
    """What a key does. napari knows it as ``napari-dkan:<name>``."""

    name: str
    does: str
    key: str  # by default, as napari writes it
    panel: str = PREDICT  # the one that has to be open for it
    repeats: bool = False  # while the key is held
    held: bool = False  # it answers with an iterator, which goes on as the key is let go
    opens: bool = False  # the panel itself

    @property
    def id(self) -> str:
        return f"{PLUGIN}:{self.name}"


# Free of napari's own keys, those of its layers among them: tests/viewer/test_actions.py.
ACTIONS = (
    Action("predict", "Predict where it is chosen", "Ctrl-Enter"),
    Action("cancel", "Cancel what is being computed", "Ctrl-."),
    Action("where_click", "Predict by clicking", "Ctrl-1"),
    Action("where_spots", "Predict at the spots of a Points layer", "Ctrl-2"),
    Action("where_region", "Predict in a region", "Ctrl-3"),
    Action("where_tissue", "Predict the whole tissue", "Ctrl-4"),
    Action("draw_region", "Draw a region", "Shift-D"),
    Action("ruler", "Measure the pixel size with a ruler", "Shift-M"),
    Action("next_gene", "Show the next gene", "Down", repeats=True),
    Action("previous_gene", "Show the previous gene", "Up", repeats=True),
    Action("find_gene", "Find a gene: type its name", "Ctrl-F"),
    Action("pin_gene", "Pin the shown gene, or let it go", "N"),
    Action("limits", "Fix the colour limits, or follow each gene", "Shift-X"),
    Action("hatch", "Hatch unreliable tiles, or not", "H"),
    Action("lens", "Gene lens on or off", "G"),
    Action("why", "Why here: explain the clicked spot, or stop", "W"),
    Action("save", "Save the results", "Shift-S"),
    Action("figure", "Save a figure of the view", "Shift-F"),
    Action("load_section", "Load a measured section", "Shift-O", QUALITY),
    Action(
        "blink", "The other of measured and predicted (hold: meanwhile)", "K", QUALITY, held=True
    ),
    Action("swipe", "Swipe between measured and predicted, or stop", "J", QUALITY),
    Action("side_by_side", "Maps side by side, or on the slide", "Shift-K", QUALITY),
    Action("report", "Write the report of the section", "Shift-R", QUALITY),
    Action("finetune", "Start to fine-tune", "Ctrl-Shift-Enter", FINETUNE),
    Action("help", "Help on the panel in front", "Shift-H"),
    Action("open_predict", f"Open {PREDICT}", "Ctrl-7", opens=True),
    Action("open_quality", f"Open {QUALITY}", "Ctrl-8", QUALITY, opens=True),
    Action("open_finetune", f"Open {FINETUNE}", "Ctrl-9", FINETUNE, opens=True),
)
BY_NAME = {action.name: action for action in ACTIONS}


class Answers:
    """How the panels of one viewer do the actions, by the action's name."""

    def __init__(self, session: Session) -> None:
        self.to: dict[str, list[Answer]] = {}


def answer(viewer: ViewerModel, **does: Answer) -> Callable[[], None]:
    """How a panel of this viewer does some of the actions; call the result when it goes.

    Raises KeyError for an action that is not in the table.
    """
    register()
    known = companion(session_of(viewer), Answers).to
    for name, act in does.items():
        known.setdefault(BY_NAME[name].name, []).append(act)

    def forget() -> None:
        for name, act in does.items():
            if act in known[name]:
                known[name].remove(act)

    return forget


def run(viewer: ViewerModel, action: Action) -> Iterator[None]:
    """Do it in this viewer; where its panel was closed, say which one it needs.

    A viewer that never had one of the panels is none of our business.
    """
    session = session_if_any(viewer)
    known = None if session is None else session.companions.get(Answers)
    acts = list(known.to.get(action.name, ())) if isinstance(known, Answers) else []
    if known is not None and not acts:
        show_info(f"{action.does}: open Plugins > {action.panel} first.")
    held = [made for made in (act() for act in acts) if action.held and made is not None]
    for made in held:
        yield from made


# ---- what napari knows of them ------------------------------------------------------------


def register() -> None:
    """Tell napari of all actions, once; what the person chose before holds."""
    if ACTIONS[0].id in action_manager._actions:
        return
    for action in ACTIONS:
        action_manager.register_action(
            action.id, _command(action), f"DKAN: {action.does}", ViewerModel, action.repeats
        )
    follow()
    get_settings().shortcuts.events.shortcuts.connect(follow)


def follow(event: object = None) -> None:
    """Bind the settings' keys, else the defaults: napari knows none to go back to for a plugin.

    Editing one key makes napari write down all of them. The defaults are taken out again, so
    that it does not wonder at its next start whose they are.
    """
    settings = get_settings().shortcuts
    plain = {a.id for a in ACTIONS if settings.shortcuts.get(a.id) == [coerce_keybinding(a.key)]}
    if plain:
        kept = {name: keys for name, keys in settings.shortcuts.items() if name not in plain}
        settings.shortcuts = kept  # which comes back here
        return
    for action in ACTIONS:
        wanted, bound = keys_of(action.name), action_manager._shortcuts.get(action.id, [])
        if [coerce_keybinding(key) for key in bound] != wanted:
            action_manager.unbind_shortcut(action.id)
            for key in wanted:
                action_manager.bind_shortcut(action.id, key)


def keys_of(name: str) -> list[KeyBinding]:
    """The keys of an action as they are now."""
    action = BY_NAME[name]
    default = [coerce_keybinding(action.key)]
    return list(get_settings().shortcuts.shortcuts.get(action.id, default))


def told(name: str) -> str:
    """The keys of an action for people, ``G`` or ``Ctrl+Enter``; empty when it has none."""
    return " or ".join(Shortcut(key).platform for key in keys_of(name))


def tip(widget: Any, text: str, name: str, links: Links) -> None:
    """A tooltip with the keys of an action in place of ``{key}``, whatever they become."""

    def write() -> None:
        keys = told(name)
        widget.setToolTip(text.replace(" ({key})", f" ({keys})" if keys else ""))

    write()
    follow_keys(write, links, name)


def follow_keys(act: Callable[[], None], links: Links, *names: str) -> None:
    """Call it when one of these actions gets other keys; napari tells of all, one by one."""
    ids = {BY_NAME[name].id for name in names}

    def changed(event: Any) -> None:
        if event.name in ids:
            act()

    register()
    links.join(changed, action_manager.events.shortcut_changed)


def _command(action: Action) -> Callable[..., Any]:
    def press(viewer: ViewerModel) -> None:
        for _ in run(viewer, action):
            pass

    def hold(viewer: ViewerModel) -> Iterator[None]:
        yield from run(viewer, action)

    def open_panel(viewer: ViewerModel) -> None:
        open_in(viewer, action.panel)

    command: Callable[..., Any] = open_panel if action.opens else hold if action.held else press
    command.__name__ = CALLED + action.name  # napari tells which may repeat by it
    return command


def open_in(viewer: Any, panel: str) -> None:
    """Open a panel of this viewer, or bring it to the front."""
    window = getattr(viewer, "window", None)
    if window is None:
        return
    docked = window.dock_widgets
    widget = next((w for name, w in docked.items() if name.startswith(panel)), None)
    if widget is None:
        _, widget = window.add_plugin_dock_widget(PLUGIN, panel)
    raised(widget)
