"""Names of the layers that the plugin adds: the gene, the kind, and the slide where it matters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from napari.layers import Layer

from .viewer_slides import ViewerSlides

if TYPE_CHECKING:
    from napari.components import ViewerModel


MAX_PLACE_LENGTH = 12  # characters


@dataclass
class _Title:
    """A title, the section or file it is of ("" for its slide), a note, and the name made of it."""

    text: str
    place: str
    note: str
    given_name: str


class LayerTitles:
    """Names layers, until the user renames them.

    napari's list elides names in the middle, so the slide comes last, and only where another
    slide or section is open. No code looks layers up by these names.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    slides : ViewerSlides
    """

    def __init__(self, viewer: ViewerModel, slides: ViewerSlides) -> None:
        self._viewer = ref(viewer)
        self._slides = slides
        self._titles: WeakKeyDictionary[Layer, _Title] = WeakKeyDictionary()
        slides.slides_changed.connect(self.refresh)
        slides.slide_renamed.connect(self.refresh)
        # A map that takes the place of another one exists beside it for a moment, as "... [1]".
        viewer.layers.events.removed.connect(self.refresh)

    def set_title(self, layer: Layer, text: str, place: str = "") -> None:
        """Set the title of a layer.

        Parameters
        ----------
        layer : Layer
        text : str
            Gene and kind, such as "ERBB2 predicted".
        place : str
            A section or a file; "" for the slide of the layer.
        """
        title = self._titles.get(layer)
        before = "" if title is None else title.place
        if title is None:
            title = self._titles[layer] = _Title(text, place, "", layer.name)
        title.text, title.place = text, place
        if place == before:
            self._apply(layer, title)
        else:
            self.refresh()  # another place may have to be named from now on

    def set_note(self, layer: Layer, note: str) -> None:
        """Set a note that follows the title, such as "(made at 0.5 um/px)"; "" removes it."""
        title = self._titles.setdefault(layer, _Title(layer.name, "", "", layer.name))
        title.note = note
        if self.is_renamed(layer):
            own = re.sub(r" \(made at [^)]*\)$", "", layer.name)
            layer.name = f"{own} {note}".strip()
        else:
            self._apply(layer, title)

    def is_renamed(self, layer: Layer) -> bool:
        """Return whether the user has named the layer."""
        title = self._titles.get(layer)
        # napari appends a number to a name that is in use.
        return title is not None and re.sub(r" \[\d+\]$", "", layer.name) != title.given_name

    def refresh(self, event: object = None) -> None:
        """Name all layers again."""
        for layer, title in list(self._titles.items()):
            self._apply(layer, title)

    def _apply(self, layer: Layer, title: _Title) -> None:
        if self.is_renamed(layer):
            return
        slide = self._slides.layer_registry.slide_of(layer)
        place = title.place or ("" if slide is None else slide.layer.name)
        suffix = f" - {self._shorten(place)}" if place and self._has_several_places() else ""
        name = f"{title.text}{suffix} {title.note}".strip()
        title.given_name = name
        if name != layer.name:
            layer.name = name

    def _sections(self) -> set[str]:
        """The places that are not the slide of a layer."""
        viewer = self._viewer()
        layers = [] if viewer is None else viewer.layers
        return {t.place for layer, t in self._titles.items() if t.place and layer in layers}

    def _has_several_places(self) -> bool:
        return len(self._slides.slides) > 1 or len(self._sections()) > 1

    def _shorten(self, place: str) -> str:
        """Shorten a long name to its beginning or end, whichever tells it from the others."""
        if len(place) <= MAX_PLACE_LENGTH:
            return place
        others = self._sections() | {s.layer.name for s in self._slides.slides}
        others -= {place}
        start, end = place[: MAX_PLACE_LENGTH - 1], place[1 - MAX_PLACE_LENGTH :]
        if not any(other.startswith(start) for other in others):
            return f"{start.rstrip()}\N{HORIZONTAL ELLIPSIS}"
        if not any(other.endswith(end) for other in others):
            return f"\N{HORIZONTAL ELLIPSIS}{end.lstrip()}"
        return place
