"""What a person prefers, from napari's own dialog (File > Preferences > napari-dkan).

The manifest says what can be preferred; napari shows it, checks it and keeps it in a file of its
own. A session starts with it, and follows a preference that is changed while it is open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.settings import get_plugin_settings

from .links import Links
from .settings import Limits, Settings

PLUGIN = "napari-dkan"
LIMITS = ("same_limits", "low", "high")
# By group, as in the manifest: preferences, and the setting each of them is.
SETTINGS = {
    "predicting": {"device": "device", "store": "store", "warm_up": "warm_up"},
    "maps": {"colormap": "colormap", "opacity": "opacity", "hatch": "hatch"}
    | dict.fromkeys(LIMITS, "limits"),
}


def preferred() -> Settings:
    """The settings a session starts with."""
    known = _known()
    if known is None:
        return Settings()
    return Settings(
        device=known.predicting.device,
        store=known.predicting.store,
        warm_up=known.predicting.warm_up,
        colormap=known.maps.colormap,
        opacity=known.maps.opacity / 100,
        hatch=known.maps.hatch,
        limits=_limits(known.maps),
    )


def preferred_checkpoint() -> Path | None:
    """The checkpoint to begin with; None: the one that comes along."""
    known = _known()
    text = "" if known is None else known.predicting.checkpoint.strip()
    return Path(text).expanduser() if text else None


def apply_icc() -> bool:
    """Whether slides that are opened from now on get the colours their ICC profile means."""
    known = _known()
    return known is not None and known.slides.icc


def follow(session: Any, links: Links) -> None:
    """Change a session's settings with the preferences: only what was changed there."""
    known = _known()
    if known is None:
        return

    def change(setting: str) -> None:
        session.change(**{setting: getattr(preferred(), setting)})

    for group, settings in SETTINGS.items():
        events = getattr(known, group).events
        for name, setting in settings.items():
            links.join(lambda event=None, s=setting: change(s), getattr(events, name))


def _known() -> Any:
    """None where the plugin is not installed as one, or is switched off."""
    try:
        return get_plugin_settings(PLUGIN)
    except KeyError:
        return None


def _limits(maps: Any) -> Limits:
    """Limits the wrong way round are none."""
    wanted = maps.same_limits and maps.low < maps.high
    return Limits((maps.low, maps.high) if wanted else None)
