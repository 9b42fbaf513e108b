"""Feature files from TRIDENT or CLAM: which file is used for which slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ...errors import SpotsError

if TYPE_CHECKING:
    from ...inference.patch_features.precomputed_features import PrecomputedFeatures
    from ...inference.predictor import Predictor
    from ...model import Checkpoint
    from .viewer_session import ViewerSession
    from .viewer_slides import ViewerSlide


PathOrPaths = str | Sequence[str]

PEEK_BYTES = 4 << 20


@dataclass(frozen=True)
class FeatureFile:
    """encoder : who made it, "" where the file says so itself."""

    path: Path
    encoder: str = ""


class SlideFeatureFiles:
    """The chosen file of every slide."""

    def __init__(self) -> None:
        self._file_of_slide: WeakKeyDictionary[ViewerSlide, FeatureFile] = WeakKeyDictionary()

    def get(self, slide: ViewerSlide | None) -> FeatureFile | None:
        return None if slide is None else self._file_of_slide.get(slide)

    def set_file(self, session: ViewerSession, path: Path | None, encoder: str = "") -> None:
        """Use a file's features on the slide of now, or (None) encode its tiles again.

        Raises SpotsError when no slide is open.
        """
        slide = session.slide
        if slide is None:
            raise SpotsError("Open the slide first that the features were made of.")
        if path is None:
            self._file_of_slide.pop(slide, None)
        else:
            self._file_of_slide[slide] = FeatureFile(path, encoder)
        session.settings_changed.emit()

    def load_features(
        self, slide: ViewerSlide, checkpoint: Checkpoint, weights: Path | None
    ) -> PrecomputedFeatures | None:
        """Open the slide's file; call it in a thread. Raises SpotsError where it does not fit."""
        from ...inference.patch_features.precomputed_features import load_precomputed_features

        file = self.get(slide)
        if file is None:
            return None
        encoder = file.encoder or None
        return load_precomputed_features(
            file.path, slide.slide, checkpoint, slide.mpp, encoder, weights
        )

    def loaded_features(
        self, slide: ViewerSlide, checkpoint: Checkpoint, predictor: Predictor | None
    ) -> PrecomputedFeatures | None:
        """The file's features where the predictor of now has them already."""
        file = self.get(slide)
        if predictor is None or predictor.precomputed_features is None or file is None:
            return None
        mine = predictor.slide is slide.slide and predictor.checkpoint is checkpoint
        return (
            predictor.precomputed_features
            if mine and predictor.precomputed_features.feature_file.path == file.path
            else None
        )


def get_feature_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """npe2 reader: a feature file that is dropped is used on the slide of now."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_feature_file if len(paths) == 1 and _has_feature_datasets(paths[0]) else None


def read_feature_file(path: PathOrPaths) -> list[Any]:
    """No layer: the session takes the file. Raises SpotsError."""
    import napari

    from .viewer_session import get_session

    viewer = napari.current_viewer()
    if viewer is None:
        raise SpotsError("Open a slide in napari first, then drop the features on it.")
    session = get_session(viewer)
    session.feature_files.set_file(session, Path(path if isinstance(path, str) else path[0]))
    return [(None,)]  # napari's word for: read, and nothing to add


def _has_feature_datasets(path: str) -> bool:
    """A cheap look for the names of both datasets; HDF5 itself is not trusted with the file."""
    try:
        with open(path, "rb") as file:
            start = file.read(PEEK_BYTES)
            file.seek(max(0, Path(path).stat().st_size - PEEK_BYTES))
            names = start + file.read(PEEK_BYTES)
    except OSError:
        return False
    return start[:4] == b"\x89HDF" and b"coords\0" in names and b"features\0" in names
