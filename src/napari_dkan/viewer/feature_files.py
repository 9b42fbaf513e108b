"""Feature files of TRIDENT and CLAM in the panel: which one is used on which slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import SpotsError

if TYPE_CHECKING:
    from ..inference.engine import Predictor
    from ..inference.ready.features import ReadyFeatures
    from ..model import Checkpoint
    from .session import OpenSlide, Session

PathOrPaths = str | Sequence[str]

PEEK = 4 << 20


@dataclass(frozen=True)
class FeatureFile:
    """encoder : who made it, "" where the file says so itself."""

    path: Path
    encoder: str = ""


class FeatureFiles:
    """The chosen file of every slide."""

    def __init__(self) -> None:
        self._chosen: WeakKeyDictionary[OpenSlide, FeatureFile] = WeakKeyDictionary()

    def of(self, slide: OpenSlide | None) -> FeatureFile | None:
        return None if slide is None else self._chosen.get(slide)

    def choose(self, session: Session, path: Path | None, encoder: str = "") -> None:
        """Use a file's features on the slide of now, or (None) encode its tiles again.

        Raises SpotsError when no slide is open.
        """
        slide = session.slide
        if slide is None:
            raise SpotsError("Open the slide first that the features were made of.")
        if path is None:
            self._chosen.pop(slide, None)
        else:
            self._chosen[slide] = FeatureFile(path, encoder)
        session.settings_changed.emit()

    def read(
        self, slide: OpenSlide, checkpoint: Checkpoint, weights: Path | None
    ) -> ReadyFeatures | None:
        """Open the slide's file; call it in a thread. Raises SpotsError where it does not fit."""
        from ..inference.ready.fit import ready_features

        file = self.of(slide)
        if file is None:
            return None
        encoder = file.encoder or None
        return ready_features(file.path, slide.slide, checkpoint, slide.mpp, encoder, weights)

    def ready(
        self, slide: OpenSlide, checkpoint: Checkpoint, predictor: Predictor | None
    ) -> ReadyFeatures | None:
        """The file's features where the predictor of now has them already."""
        file = self.of(slide)
        if predictor is None or predictor.ready is None or file is None:
            return None
        mine = predictor.slide is slide.slide and predictor.checkpoint is checkpoint
        return predictor.ready if mine and predictor.ready.file.path == file.path else None


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """npe2 reader: a feature file that is dropped is used on the slide of now."""
    paths = [path] if isinstance(path, str) else list(path)
    return use_dropped if len(paths) == 1 and _holds_features(paths[0]) else None


def use_dropped(path: PathOrPaths) -> list[Any]:
    """No layer: the session takes the file. Raises SpotsError."""
    import napari

    from .session import session_of

    viewer = napari.current_viewer()
    if viewer is None:
        raise SpotsError("Open a slide in napari first, then drop the features on it.")
    session = session_of(viewer)
    session.feature_files.choose(session, Path(path if isinstance(path, str) else path[0]))
    return [(None,)]  # napari's word for: read, and nothing to add


def _holds_features(path: str) -> bool:
    """A cheap look for the names of both datasets; HDF5 itself is not trusted with the file."""
    try:
        with open(path, "rb") as file:
            start = file.read(PEEK)
            file.seek(max(0, Path(path).stat().st_size - PEEK))
            names = start + file.read(PEEK)
    except OSError:
        return False
    return start[:4] == b"\x89HDF" and b"coords\0" in names and b"features\0" in names
