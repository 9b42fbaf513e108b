"""napari's keys for stepping through a stack (left, right) step through the genes of a slide.

They do nothing there otherwise. In a viewer of more dimensions they stay what they are, and
whoever gives napari's steps other keys in the shortcut editor has these for the genes too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.settings import get_settings
from napari.utils.action_manager import action_manager

from .links import SignalConnections
from .session import ViewerSession

GENE_STEPS = {"napari:increment_dims_left": -1, "napari:increment_dims_right": 1}


class ArrowKeyBindings:
    """Of one viewer, as long as its panel is open."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._keys: list[Any] = []
        connections.connect(self._bind_keys, get_settings().shortcuts.events.shortcuts)
        self._bind_keys()

    def close(self) -> None:
        for key in self._keys:
            self._session.viewer.bind_key(key, None)
        self._keys = []

    def _bind_keys(self, event: object = None) -> None:
        self.close()
        for name, step in GENE_STEPS.items():
            for key in get_settings().shortcuts.shortcuts.get(name, []):
                self._session.viewer.bind_key(key, self._make_step_function(name, step), overwrite=True)
                self._keys.append(key)

    def _make_step_function(self, name: str, step: int) -> Callable[[Any], None]:
        def step_gene(viewer: Any) -> None:
            if viewer.dims.ndim > 2:
                action_manager.trigger(name)
            else:
                self._session.step_gene(step)

        return step_gene
