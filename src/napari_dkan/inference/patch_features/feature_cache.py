"""Encoder features of a slide's patches; each patch is read and encoded once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cache.keyed_array import KeyedArray, PersistentKeyedArray, pack_keys
from ..device import autocast, free_device_memory, to_device
from ..device_errors import DeviceError, DeviceFailure, is_out_of_memory
from ..prediction_progress import PredictionUpdate, StageTimer
from .patch_geometry import PatchKeys
from .patch_loader import PatchLoader, PatchRequest, PatchRequestSubset

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...model import Checkpoint
    from ...model.encoders.encoder_spec import EncoderSpec
    from .precomputed_features import PrecomputedFeatures


TILES_PER_UPDATE = 64
# Tiles; less after memory ran out. On a CPU the first layers of 32 tiles need arrays of more than
# 32 MB, which glibc gets from the system anew for every layer: half of the time went there.
MAX_ENCODER_BATCH = {"cpu": 16, "gpu": 512}


class PatchFeatureCache:
    """Features (d,) of the patches of one slide, by position.

    Parameters
    ----------
    weights : Path, optional
        Local file for an encoder whose weights are not in the checkpoint.
    precomputed_features : PrecomputedFeatures, optional
        Features that are used instead of encoding.

    Attributes
    ----------
    damaged_keys : set of int
        Packed keys of the patches whose pixels could not be decoded.
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
        self._max_encoder_batch = MAX_ENCODER_BATCH["cpu" if device.type == "cpu" else "gpu"]
        self.array = KeyedArray(checkpoint.encoder.dimension)
        self._persistent_array: PersistentKeyedArray | None = None
        self.damaged_keys: set[int] = set()

    def attach(self, array: PersistentKeyedArray) -> None:
        """Add features to be persisted to an array around this cache's own."""
        self._persistent_array = array

    def detach(self) -> None:
        """Cache all features in memory only."""
        self._persistent_array = None

    @property
    def encoder(self) -> Any:
        """The tile encoder, built at its first use, which may download gated weights."""
        if self._encoder is None:
            self._encoder = self._checkpoint.build_tile_encoder(self._weights).to(self._device)
        return self._encoder

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The encoder's description, with its weights after the encoder was built."""
        return self._checkpoint.encoder if self._encoder is None else self._encoder.spec

    @property
    def tile_px(self) -> int:
        """Side of the encoder's tiles in pixels."""
        return self._checkpoint.encoder.px

    def encode(self, tiles: NDArray[np.uint8]) -> Tensor:
        """(N, px, px, 3) -> (N, d) float32; batches are halved when memory runs out."""
        while True:
            try:
                return self._encode_parts(tiles)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._max_encoder_batch == 1:
                    raise DeviceError(self._device, DeviceFailure.memory) from error
            free_device_memory(self._device)
            self._max_encoder_batch = max(1, min(self._max_encoder_batch, len(tiles)) // 2)

    def _encode_parts(self, tiles: NDArray[np.uint8]) -> Tensor:
        import torch

        with self.stage_timer("copy", len(tiles)):
            batch = to_device(tiles, self._device).permute(0, 3, 1, 2)
        precision = autocast(self._device) if self.encoder.mixed_precision else nullcontext()
        parts = torch.split(batch, self._max_encoder_batch)
        with self.stage_timer("encode", len(tiles)), torch.inference_mode(), precision:
            return torch.cat([self.encoder(p).float() for p in parts])

    def find_missing(self, keys: PatchKeys) -> PatchKeys:
        """Find the patches that have to be read, and cache those of the feature file.

        Parameters
        ----------
        keys : ndarray
            (N, 2).

        Returns
        -------
        ndarray
            (M, 2) unique keys that are neither cached nor damaged; none where the feature file
            lacks the encoder.
        """
        if not len(keys):
            return keys
        keys = np.unique(keys, axis=0)
        keys = keys[~self.array.contains(keys)]
        if self._precomputed_features is not None and len(keys):
            in_file = self._precomputed_features.contains(keys)
            self.array.add(keys[in_file], self._precomputed_features.get_features(keys[in_file]))
            keys = keys[:0] if self._precomputed_features.lacks_encoder else keys[~in_file]
        if self.damaged_keys:
            damaged = (k in self.damaged_keys for k in pack_keys(keys))
            keys = keys[~np.fromiter(damaged, bool, len(keys))]
        return keys

    def find_available(self, keys: PatchKeys) -> NDArray[np.bool_]:
        """(...) whether features of the keys (..., 2) are in the file or can be encoded."""
        if self._precomputed_features is None or not self._precomputed_features.lacks_encoder:
            return np.ones(keys.shape[:-1], bool)
        return self._precomputed_features.contains(keys)

    def encode_and_cache(self, request: PatchRequest | PatchRequestSubset, persist: bool) -> None:
        """Encode and cache the patches of a request; ``persist`` caches them on disk too."""
        keys = request.keys
        if not len(keys):
            return
        pixels = request.result()
        good = ~pixels.damaged_mask
        self.damaged_keys.update(pack_keys(keys[~good]))
        if good.any():
            tiles = pixels.tiles if good.all() else pixels.tiles[good]
            features = self.encode(tiles).cpu().numpy()
            if persist and self._persistent_array is not None:
                self._persistent_array.add(keys[good], features)
            else:
                self.array.add(keys[good], features)

    def compute_missing(
        self, loader: PatchLoader, keys: PatchKeys
    ) -> Generator[PredictionUpdate, None, None]:
        """Read and encode those of the keys (N, 2) that are not cached, with progress updates.

        Patches are read while the previous ones are encoded.
        """
        missing = self.find_missing(keys)
        if not len(missing):
            return
        missing = missing[np.lexsort((missing[:, 0], missing[:, 1]))]
        parts = [
            missing[i : i + TILES_PER_UPDATE] for i in range(0, len(missing), TILES_PER_UPDATE)
        ]
        request = loader.request(parts[0], self.tile_px)
        done = 0
        for i, part in enumerate(parts):
            is_last = i + 1 == len(parts)
            next_request = None if is_last else loader.request(parts[i + 1], self.tile_px)
            self.encode_and_cache(request, persist=True)
            done += len(part)
            yield PredictionUpdate("context", done, len(missing))
            if next_request is not None:
                request = next_request

    def get_features(self, keys: PatchKeys) -> tuple[Tensor, NDArray[np.bool_]]:
        """Features (N, d) of the keys (N, 2), zeros where not cached, and whether cached."""
        features, known = self.array.get(keys)
        return to_device(features, self._device), known
