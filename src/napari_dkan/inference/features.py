"""Encoder features of a slide's patches: each patch is read and encoded once, then kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .device import autocast, free_memory, to_device
from .job import OutOfMemory, Update, context_update
from .patches import Keys
from .reading import Part, Readers, Reading
from .rows import Rows, packed
from .timing import Stages

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..model import Checkpoint
    from ..model.encoders import EncoderSpec
    from .ready.features import ReadyFeatures

YIELD_TILES = 64  # encoded between two updates
LARGEST = 512  # tiles the encoder takes at once, less after memory ran out


class PatchFeatures:
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
        stages: Stages,
        weights: Path | None = None,
        ready: ReadyFeatures | None = None,
    ) -> None:
        self._checkpoint, self._device, self.stages = checkpoint, device, stages
        self._weights, self._ready = weights, ready
        self._encoder: Any = None
        self._largest = LARGEST
        self.rows = Rows(checkpoint.encoder.dimension)
        self.lasting: Callable[[Keys, NDArray[np.float32]], None] = self.rows.add
        self.damaged: set[int] = set()

    @property
    def encoder(self) -> Any:
        """The tile encoder, built when first needed: gated weights may have to be fetched."""
        if self._encoder is None:
            self._encoder = self._checkpoint.tile_encoder(self._weights).to(self._device)
        return self._encoder

    @property
    def made_by(self) -> EncoderSpec:
        """Which encoder, and once it is built with which weights."""
        return self._checkpoint.encoder if self._encoder is None else self._encoder.spec

    @property
    def px(self) -> int:
        return self._checkpoint.encoder.px

    def encode(self, tiles: NDArray[np.uint8]) -> Tensor:
        """(N, px, px, 3) -> (N, d) float32; what the device cannot hold is cut in half."""
        import torch

        with self.stages("copy", len(tiles)):
            batch = to_device(tiles, self._device).permute(0, 3, 1, 2)
        mixed = autocast(self._device) if self.encoder.mixed_precision else nullcontext()
        with self.stages("encode", len(tiles)):
            while True:
                parts = batch.split(self._largest)
                try:
                    with torch.inference_mode(), mixed:
                        return torch.cat([self.encoder(p).float() for p in parts])
                except torch.OutOfMemoryError as error:
                    if self._largest == 1:
                        raise OutOfMemory(self._device) from error
                free_memory(self._device)
                self._largest = max(1, min(self._largest, len(tiles)) // 2)

    def unknown(self, keys: Keys) -> Keys:
        """(M, 2) the keys (N, 2) that have still to be read: unique, neither kept nor damaged.

        Those of a feature file are kept from now on, and without weights no others can be had.
        """
        if not len(keys):
            return keys
        keys = np.unique(keys, axis=0)
        keys = keys[~self.rows.has(keys)]
        if self._ready is not None and len(keys):
            there = self._ready.has(keys)
            self.rows.add(keys[there], self._ready.take(keys[there]))
            keys = keys[:0] if self._ready.alone else keys[~there]
        if self.damaged:
            bad = np.fromiter((k in self.damaged for k in packed(keys)), bool, len(keys))
            keys = keys[~bad]
        return keys

    def attainable(self, keys: Keys) -> NDArray[np.bool_]:
        """(...) whether features of the positions (..., 2) can be had at all."""
        if self._ready is None or not self._ready.alone:
            return np.ones(keys.shape[:-1], bool)
        return self._ready.has(keys)

    def learn(self, reading: Reading | Part, lasting: bool) -> None:
        """Encode and keep what was read; lasting : for the next visit too."""
        keys = reading.keys
        if not len(keys):
            return
        pixels = reading.pixels()
        good = ~pixels.damaged
        self.damaged.update(packed(keys[~good]))
        if good.any():
            tiles = pixels.tiles if good.all() else pixels.tiles[good]
            keep = self.lasting if lasting else self.rows.add
            keep(keys[good], self.encode(tiles).cpu().numpy())

    def ensure(self, readers: Readers, keys: Keys) -> Generator[Update, None, None]:
        """Read and encode what is not known of the keys (N, 2); yields as it goes.

        The next patches are read while these are encoded.
        """
        todo = self.unknown(keys)
        if not len(todo):
            return
        todo = todo[np.lexsort((todo[:, 0], todo[:, 1]))]
        parts = [todo[i : i + YIELD_TILES] for i in range(0, len(todo), YIELD_TILES)]
        reading = readers.ask(parts[0], self.px)
        done = 0
        for i, part in enumerate(parts):
            following = readers.ask(parts[i + 1], self.px) if i + 1 < len(parts) else None
            self.learn(reading, lasting=True)
            done += len(part)
            yield context_update(done, len(todo))
            if following is not None:
                reading = following

    def at(self, keys: Keys) -> tuple[Tensor, NDArray[np.bool_]]:
        """Features (N, d) of the keys (N, 2), zeros where there are none, and which are known."""
        features, known = self.rows.take(keys)
        return to_device(features, self._device), known
