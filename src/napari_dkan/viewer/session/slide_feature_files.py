"""Feature files from TRIDENT or CLAM: which file is used for which slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .slide_layer import ViewerSlide

if TYPE_CHECKING:
    from ...inference.patch_features.precomputed_features import PrecomputedFeatures
    from ...inference.predictor import Predictor
    from ...model import Checkpoint


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

    def set_file(self, slide: ViewerSlide, path: Path | None, encoder: str = "") -> None:
        """Use the features of a file on a slide; None computes them from its tiles again."""
        if path is None:
            self._file_of_slide.pop(slide, None)
        else:
            self._file_of_slide[slide] = FeatureFile(path, encoder)

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
