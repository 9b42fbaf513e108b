"""Encoder features of a slide's patches; each patch is read and encoded once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cache.keyed_array import KeyedArray, pack_keys
from ..device import autocast, free_device_memory, to_device
from ..prediction_progress import (
    DeviceOutOfMemoryError,
    PredictionUpdate,
    StageTimer,
    make_context_update,
)
from .patch_geometry import PatchKeys
from .patch_loader import PatchLoader, PatchRequest, PatchRequestSubset

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...model import Checkpoint
    from ...model.encoders import EncoderSpec
    from .precomputed_features import PrecomputedFeatures


TILES_PER_UPDATE = 64  # encoded between two updates
MAX_ENCODER_BATCH = 512  # tiles the encoder takes at once, less after memory ran out


class PatchFeatureCache:
    """Features (d,) of the patches of one slide, by position.

    weights : local file for an encoder whose weights do not travel in the checkpoint.
    ready : features from a file; they are taken before anything is encoded.
    lasting : takes what is worth keeping for the next visit; into memory only, unless it is set.
    damaged : positions whose pixels could not be decoded, as packed keys.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        stage_timer: StageTimer,
        weights: Path | None = None,
        precomputed_features: PrecomputedFeatures | None = None,
    ) -> None:
        self._checkpoint, self._device, self.stage_timer = checkpoint, device, stage_timer
        self._weights, self._precomputed_features = weights, precomputed_features
        self._encoder: Any = None
        self._max_encoder_batch = MAX_ENCODER_BATCH
        self.array = KeyedArray(checkpoint.encoder.dimension)
        self.persist_rows: Callable[[PatchKeys, NDArray[np.float32]], None] = self.array.add
        self.damaged_keys: set[int] = set()

    @property
    def encoder(self) -> Any:
        """The tile encoder, built when first needed: gated weights may have to be fetched."""
        if self._encoder is None:
            self._encoder = self._checkpoint.build_tile_encoder(self._weights).to(self._device)
        return self._encoder

    @property
    def encoder_spec(self) -> EncoderSpec:
        """Which encoder, and once it is built with which weights."""
        return self._checkpoint.encoder if self._encoder is None else self._encoder.spec

    @property
    def tile_px(self) -> int:
        return self._checkpoint.encoder.px

    def encode(self, tiles: NDArray[np.uint8]) -> Tensor:
        """(N, px, px, 3) -> (N, d) float32; what the device cannot hold is cut in half."""
        import torch

        with self.stage_timer("copy", len(tiles)):
            batch = to_device(tiles, self._device).permute(0, 3, 1, 2)
        mixed = autocast(self._device) if self.encoder.mixed_precision else nullcontext()
        with self.stage_timer("encode", len(tiles)):
            while True:
                parts = batch.split(self._max_encoder_batch)
                try:
                    with torch.inference_mode(), mixed:
                        return torch.cat([self.encoder(p).float() for p in parts])
                except torch.OutOfMemoryError as error:
                    if self._max_encoder_batch == 1:
                        raise DeviceOutOfMemoryError(self._device) from error
                free_device_memory(self._device)
                self._max_encoder_batch = max(1, min(self._max_encoder_batch, len(tiles)) // 2)

    def find_missing(self, keys: PatchKeys) -> PatchKeys:
        """(M, 2) the keys (N, 2) that have still to be read: unique, neither kept nor damaged.

        Those of a feature file are kept from now on, and without weights no others can be had.
        """
        if not len(keys):
            return keys
        keys = np.unique(keys, axis=0)
        keys = keys[~self.array.contains(keys)]
        if self._precomputed_features is not None and len(keys):
            there = self._precomputed_features.contains(keys)
            self.array.add(keys[there], self._precomputed_features.get_features(keys[there]))
            keys = keys[:0] if self._precomputed_features.lacks_encoder else keys[~there]
        if self.damaged_keys:
            bad = np.fromiter((k in self.damaged_keys for k in pack_keys(keys)), bool, len(keys))
            keys = keys[~bad]
        return keys

    def find_available(self, keys: PatchKeys) -> NDArray[np.bool_]:
        """(...) whether features of the positions (..., 2) can be had at all."""
        if self._precomputed_features is None or not self._precomputed_features.lacks_encoder:
            return np.ones(keys.shape[:-1], bool)
        return self._precomputed_features.contains(keys)

    def encode_and_cache(self, request: PatchRequest | PatchRequestSubset, persist: bool) -> None:
        """Encode and keep what was read; lasting : for the next visit too."""
        keys = request.keys
        if not len(keys):
            return
        pixels = request.result()
        good = ~pixels.damaged_mask
        self.damaged_keys.update(pack_keys(keys[~good]))
        if good.any():
            tiles = pixels.tiles if good.all() else pixels.tiles[good]
            keep = self.persist_rows if persist else self.array.add
            keep(keys[good], self.encode(tiles).cpu().numpy())

    def compute_missing(
        self, loader: PatchLoader, keys: PatchKeys
    ) -> Generator[PredictionUpdate, None, None]:
        """Read and encode what is not known of the keys (N, 2); yields as it goes.

        The next patches are read while these are encoded.
        """
        todo = self.find_missing(keys)
        if not len(todo):
            return
        todo = todo[np.lexsort((todo[:, 0], todo[:, 1]))]
        parts = [todo[i : i + TILES_PER_UPDATE] for i in range(0, len(todo), TILES_PER_UPDATE)]
        reading = loader.request(parts[0], self.tile_px)
        done = 0
        for i, part in enumerate(parts):
            following = loader.request(parts[i + 1], self.tile_px) if i + 1 < len(parts) else None
            self.encode_and_cache(reading, persist=True)
            done += len(part)
            yield make_context_update(done, len(todo))
            if following is not None:
                reading = following

    def get_features(self, keys: PatchKeys) -> tuple[Tensor, NDArray[np.bool_]]:
        """Features (N, d) of the keys (N, 2), zeros where there are none, and which are known."""
        features, known = self.array.get(keys)
        return to_device(features, self._device), known
