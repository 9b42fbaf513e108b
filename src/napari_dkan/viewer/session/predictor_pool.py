"""The predictor of the current slide and checkpoint, and the feature file of every slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ...inference.predictor import Predictor
from .slide_layer import ViewerSlide

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ...inference.patch_features.precomputed_features import PrecomputedFeatures
    from ...inference.target import Target
    from ...model import Checkpoint


RateKey = tuple[int, str, str]  # slide, checkpoint and device of a measured rate
PredictorOptions = tuple[str, Path | None, bool]  # device, encoder weights, whether to store tiles


@dataclass(frozen=True)
class FeatureFile:
    """Tile features from TRIDENT or CLAM.

    Attributes
    ----------
    path : Path
    encoder : str
        Name of the encoder; empty if the file states it.
    """

    path: Path
    encoder: str = ""


class PredictorPool:
    """Keeps the predictor that was used last; builds another one when its inputs change.

    Parameters
    ----------
    get_options : callable
        Returns the current device, encoder weights and whether tiles are stored on disk.

    Attributes
    ----------
    tile_rates : dict
        Measured rates in spots per second.
    """

    def __init__(self, get_options: Callable[[], PredictorOptions]) -> None:
        self.tile_rates: dict[RateKey, float] = {}
        self._get_options = get_options
        self._keyed_predictor: tuple[tuple[object, ...], Predictor] | None = None
        self._file_of_slide: WeakKeyDictionary[ViewerSlide, FeatureFile] = WeakKeyDictionary()
        self._reported_warnings: set[str] = {""}
        self._lock = Lock()

    @property
    def current(self) -> Predictor | None:
        """The predictor that was used last."""
        return None if self._keyed_predictor is None else self._keyed_predictor[1]

    def get(self, slide: ViewerSlide, checkpoint: Checkpoint) -> Predictor:
        """Return the predictor of a slide; detects its tissue first. For worker threads.

        Raises
        ------
        SpotsError
            If the slide's feature file does not fit.
        """
        from ...inference.device import reserve_cpu_core

        reserve_cpu_core()
        tissue = self.get_tissue(slide)
        with self._lock:
            options = self._get_options()
            key = (id(slide), checkpoint.sha256, slide.mpp, *options, self.feature_file(slide))
            if self._keyed_predictor is None or self._keyed_predictor[0] != key:
                features = self._load_features(slide, checkpoint, options[1])
                predictor = Predictor(
                    slide.slide,
                    checkpoint,
                    slide.mpp,
                    tissue,
                    *options,
                    precomputed_features=features,
                )
                self._keyed_predictor = (key, predictor)
            predictor = self._keyed_predictor[1]
            predictor.tissue = tissue
            return predictor

    def get_tissue(self, slide: ViewerSlide) -> BaseGeometry:
        """Return the tissue in level-0 px; detected on the first call. For worker threads."""
        from ...inference.predict import find_tissue_region

        with self._lock:
            if slide.tissue is None:
                slide.tissue = find_tissue_region(slide.slide, slide.mpp)
            return slide.tissue

    def count_cached(self, slide: ViewerSlide, checkpoint: Checkpoint, target: Target) -> int:
        """Return how many tiles of a target need no computing; 0 before the first prediction."""
        predictor = self.current
        if predictor is None or predictor.checkpoint is not checkpoint:
            return 0
        if predictor.slide is not slide.slide or predictor.mpp != slide.mpp:
            return 0
        return predictor.count_cached_spots(target)

    def take_store_warning(self) -> str:
        """Return why tiles are not stored on disk; every reason is returned once."""
        note = "" if self.current is None else self.current.token_cache.warning
        if note in self._reported_warnings:
            return ""
        self._reported_warnings.add(note)
        return note

    # Feature files

    def feature_file(self, slide: ViewerSlide | None) -> FeatureFile | None:
        """Return the feature file of a slide; None if its tiles are encoded."""
        return None if slide is None else self._file_of_slide.get(slide)

    def set_feature_file(self, slide: ViewerSlide, path: Path | None, encoder: str = "") -> None:
        """Use the features of a file on a slide; None encodes its tiles again."""
        if path is None:
            self._file_of_slide.pop(slide, None)
        else:
            self._file_of_slide[slide] = FeatureFile(path, encoder)

    def loaded_features(
        self, slide: ViewerSlide, checkpoint: Checkpoint
    ) -> PrecomputedFeatures | None:
        """Return the features of the slide's file if the current predictor has loaded them."""
        file, predictor = self.feature_file(slide), self.current
        if predictor is None or predictor.precomputed_features is None or file is None:
            return None
        same_inputs = predictor.slide is slide.slide and predictor.checkpoint is checkpoint
        features = predictor.precomputed_features
        return features if same_inputs and features.feature_file.path == file.path else None

    def _load_features(
        self, slide: ViewerSlide, checkpoint: Checkpoint, weights: Path | None
    ) -> PrecomputedFeatures | None:
        from ...inference.patch_features.precomputed_features import load_precomputed_features

        file = self.feature_file(slide)
        if file is None:
            return None
        encoder = file.encoder or None
        return load_precomputed_features(
            file.path, slide.slide, checkpoint, slide.mpp, encoder, weights
        )
