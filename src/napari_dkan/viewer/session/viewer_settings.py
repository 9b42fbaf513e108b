"""Settings of one viewer, and their initial values from napari's preferences dialog.

The preferences are under File > Preferences > napari-dkan. A session starts with them and follows
later changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from napari.settings import get_plugin_settings

from ...inference.map_colors import DEFAULT_COLORMAP
from ..widgets.signal_connections import SignalConnections


class TargetMode(StrEnum):
    """Where to predict; the values are the labels of the panel."""

    CLICK = "Click"
    SPOTS = "Spots layer"
    REGION = "Region"
    TISSUE = "Whole tissue"


@dataclass(frozen=True)
class ContrastLimits:
    """Contrast limits: percentiles of each gene, or the same limits for all genes.

    Attributes
    ----------
    fixed : tuple of float or None
        Of all genes; None where each gene has its own.
    by_gene : mapping
        Limits that were set by hand, by the symbol of their gene; other genes have percentiles.
    """

    fixed: tuple[float, float] | None = None
    by_gene: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def chosen_for(self, gene: str | None) -> tuple[float, float] | None:
        """Return the limits of a gene; None for its percentiles."""
        return self.fixed or self.by_gene.get(gene or "")

    def choose(self, gene: str, limits: tuple[float, float] | None) -> ContrastLimits:
        """Set the limits of a gene, or those of all genes where these are fixed.

        None returns to the percentiles of each gene, or of this one.
        """
        if self.fixed is not None:
            return replace(self, fixed=limits)
        others = {symbol: value for symbol, value in self.by_gene.items() if symbol != gene}
        return replace(self, by_gene=others if limits is None else {**others, gene: limits})


@dataclass(frozen=True)
class ViewerSettings:
    """Settings of one session; their initial values come from napari's preferences.

    Attributes
    ----------
    target_mode : TargetMode
    device : str
        "auto" or the name of a torch device.
    encoder_weights : Path or None
        Weights of the tile encoder, for checkpoints that do not contain them.
    dense_grid : bool
        Adjacent tiles instead of tiles at the spot pitch.
    tissue_only : bool
    store_tiles : bool
        Keep encoded tiles on disk.
    prefetch : bool
        Compute around the current view in advance.
    hatch_unreliable : bool
    show_spread : bool
        Veil tiles with a large spread, and save it.
    allow_unproven_genes : bool
        Genes outside the panel even if the card has no evaluation of them.
    colormap : str
    opacity : float
    smooth_maps : bool
        Interpolate between the centres of tiles; only what is drawn.
    contrast_limits : ContrastLimits
    """

    target_mode: TargetMode = TargetMode.CLICK
    device: str = "auto"
    encoder_weights: Path | None = None
    dense_grid: bool = False
    tissue_only: bool = True
    store_tiles: bool = True
    prefetch: bool = True
    hatch_unreliable: bool = True
    show_spread: bool = False
    allow_unproven_genes: bool = False
    colormap: str = DEFAULT_COLORMAP
    opacity: float = 0.65
    smooth_maps: bool = True
    contrast_limits: ContrastLimits = ContrastLimits()


PLUGIN_NAME = "napari-dkan"
LIMIT_PREFERENCES = ("same_limits", "low", "high")
# Groups of the manifest: preference -> field of ViewerSettings.
PREFERENCE_TO_SETTING = {
    "predicting": {"device": "device", "store": "store_tiles", "warm_up": "prefetch"},
    "maps": {
        "colormap": "colormap",
        "opacity": "opacity",
        "smooth": "smooth_maps",
        "hatch": "hatch_unreliable",
    }
    | dict.fromkeys(LIMIT_PREFERENCES, "contrast_limits"),
}


def settings_from_preferences() -> ViewerSettings:
    """Return the initial settings of a session."""
    preferences = _plugin_preferences()
    if preferences is None:
        return ViewerSettings()
    return ViewerSettings(
        device=preferences.predicting.device,
        store_tiles=preferences.predicting.store,
        prefetch=preferences.predicting.warm_up,
        colormap=preferences.maps.colormap,
        opacity=preferences.maps.opacity / 100,
        smooth_maps=preferences.maps.smooth,
        hatch_unreliable=preferences.maps.hatch,
        contrast_limits=_limits_from_preferences(preferences.maps),
    )


def get_preferred_checkpoint() -> Path | None:
    """Return the checkpoint to load first; None for the bundled one."""
    preferences = _plugin_preferences()
    text = "" if preferences is None else preferences.predicting.checkpoint.strip()
    return Path(text).expanduser() if text else None


def get_canvas_preference(name: str) -> bool:
    """Return whether "scale_bar" or "overview" is shown on the canvas."""
    preferences = _plugin_preferences()
    return preferences is None or bool(getattr(preferences.maps, name))


def set_canvas_preference(name: str, shown: bool) -> None:
    """Remember whether "scale_bar" or "overview" is shown on the canvas."""
    preferences = _plugin_preferences()
    if preferences is not None:
        setattr(preferences.maps, name, shown)


def connect_canvas_preference(
    name: str, callback: Callable[[], None], connections: SignalConnections
) -> None:
    """Call ``callback`` when the preference has changed."""
    preferences = _plugin_preferences()
    if preferences is not None:
        connections.connect(lambda event=None: callback(), getattr(preferences.maps.events, name))


def is_icc_enabled() -> bool:
    """Return whether the ICC profile is applied to slides that are opened."""
    preferences = _plugin_preferences()
    return preferences is not None and preferences.slides.icc


def is_whole_glass_shown() -> bool:
    """Return whether slides are opened with the whole glass and not the scan area only."""
    preferences = _plugin_preferences()
    return preferences is not None and preferences.slides.whole_glass


def connect_preferences(session: Any, connections: SignalConnections) -> None:
    """Apply later changes of single preferences to the settings of a session."""
    preferences = _plugin_preferences()
    if preferences is None:
        return

    def change(setting: str) -> None:
        session.change_settings(**{setting: getattr(settings_from_preferences(), setting)})

    for group, settings in PREFERENCE_TO_SETTING.items():
        events = getattr(preferences, group).events
        for name, setting in settings.items():
            connections.connect(lambda event=None, s=setting: change(s), getattr(events, name))


def _plugin_preferences() -> Any:
    """None if the plugin is not installed or disabled."""
    try:
        return get_plugin_settings(PLUGIN_NAME)
    except KeyError:
        return None


def _limits_from_preferences(maps: Any) -> ContrastLimits:
    """Ignore limits in the wrong order."""
    is_valid = maps.same_limits and maps.low < maps.high
    return ContrastLimits((maps.low, maps.high) if is_valid else None)
