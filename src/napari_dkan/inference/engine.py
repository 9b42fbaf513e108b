"""The prediction engine: pixels in, expression out, batch by batch.

One path serves a click, a spot file, a region and a whole slide, so all of them give the
same numbers. It yields after every batch, so whoever drives it can show the result, count
the rate and stop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .context import CAPTURE_UM, Seen, SlideContext
from .device import autocast, free_memory, pick_device
from .features import TileFeatures
from .job import OutOfMemory, Update
from .patches import SpotPixels, read_spot
from .readahead import read_ahead
from .target import Target

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import Checkpoint
    from ..slide import Slide
    from .zero_shot import ZeroShotGenes

BATCH_SECONDS = 0.25  # a batch is the grain of cancelling and of what appears
LARGEST_BATCH = 256


@dataclass(frozen=True)
class _Asked:
    """Genes to decode: rows of the panel, None for all, and the tokens of genes outside it."""

    rows: Tensor | None
    new: Tensor | None


class Predictor:
    """One slide, one checkpoint, one device; keeps encoded tiles for the next job.

    tissue : geometry in level-0 px that makes up the slide's context.
    encoder_weights : local file for an encoder whose weights do not travel in the checkpoint.
    """

    def __init__(
        self,
        slide: Slide,
        checkpoint: Checkpoint,
        mpp: float,
        tissue: BaseGeometry,
        device: str | None = None,
        encoder_weights: Path | None = None,
    ) -> None:
        self.slide, self.checkpoint, self.mpp = slide, checkpoint, mpp
        self.device: torch.device = pick_device(device)
        self.side = checkpoint.patch.um / mpp  # of a patch, in level-0 px
        self.network = checkpoint.network.to(self.device)
        self.features = TileFeatures(slide, checkpoint, self.side, self.device, encoder_weights)
        self._context = SlideContext(
            self.network,
            self.features,
            tissue,
            checkpoint.spot_pitch_um / mpp,
            CAPTURE_UM / mpp,
            (slide.width, slide.height),
        )
        self._batch = 4
        self._largest = LARGEST_BATCH

    @property
    def tissue(self) -> BaseGeometry:
        """What makes up the slide's context; may be changed between jobs."""
        return self._context.tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        self._context.tissue = geometry

    def stream(
        self,
        target: Target,
        order: NDArray[np.int64] | None = None,
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> Iterator[Update]:
        """Predict the target's spots, in ``order`` (rows, default as they are).

        genes : panel rows, all when None. zero_shot : genes whose values follow theirs, in
        standard deviations from their own mean.

        Yields an Update per batch. Raises DkanError (a slide gone, memory out, an encoder
        that cannot be had); what was yielded before stays valid.
        """
        rows = np.arange(len(target)) if order is None else np.asarray(order, dtype=np.int64)
        seen = yield from self._context.of(target)
        yield from self._spots(target.spots.xy, rows, seen, self._asked(genes, zero_shot))

    def _asked(self, genes: Sequence[int] | None, zero_shot: ZeroShotGenes | None) -> _Asked:
        import torch

        rows = None if genes is None else torch.as_tensor(genes, device=self.device)
        if zero_shot is None or not zero_shot.genes:
            return _Asked(rows, None)
        with torch.no_grad():
            return _Asked(rows, self.network.text_token_of(zero_shot.features))

    def _spots(
        self,
        xy: NDArray[np.float64],
        rows: NDArray[np.int64],
        seen: Seen,
        asked: _Asked,
    ) -> Iterator[Update]:
        pixels_of = (
            self.network.config.grid,
            self.checkpoint.patch.px,
            self.features.encoder.spec.px,
        )

        def read(row: int) -> SpotPixels:
            x, y = xy[row]
            return read_spot(self.slide, x, y, self.side, *pixels_of)

        reads = read_ahead(read, rows.tolist())
        done = 0
        try:
            while done < len(rows):
                start = time.perf_counter()
                size = min(self._batch, len(rows) - done)
                pixels = [next(reads) for _ in range(size)]
                batch = rows[done : done + size]
                values = self._predict(pixels, batch, seen, asked)
                done += size
                self._adapt(size, time.perf_counter() - start)
                yield Update("spots", done, len(rows), batch, values)
        finally:
            reads.close()

    def _adapt(self, size: int, seconds: float) -> None:
        """Aim at BATCH_SECONDS a batch: quick results, quick Cancel, a busy device."""
        ideal = size * BATCH_SECONDS / max(seconds, 1e-6)
        self._batch = int(np.clip(ideal, self._batch / 2, self._batch * 2).clip(1, self._largest))

    def _predict(
        self,
        pixels: list[SpotPixels],
        rows: NDArray[np.int64],
        seen: Seen,
        asked: _Asked,
    ) -> NDArray[np.float32]:
        """(B, G) of one batch; a batch that the device cannot hold is halved and tried again."""
        import torch

        try:
            return self._forward(pixels, rows, seen, asked)
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise OutOfMemory(self.device) from error
        free_memory(self.device)
        half = len(pixels) // 2
        self._batch = self._largest = half
        return np.concatenate(
            [
                self._predict(pixels[:half], rows[:half], seen, asked),
                self._predict(pixels[half:], rows[half:], seen, asked),
            ]
        )

    def _forward(
        self,
        pixels: list[SpotPixels],
        rows: NDArray[np.int64],
        seen: Seen,
        asked: _Asked,
    ) -> NDArray[np.float32]:
        import torch

        tiles = np.stack([p.tiles for p in pixels])
        encoded = self.features.encode(tiles.reshape(-1, *tiles.shape[2:]))
        neighbours = encoded.reshape(*tiles.shape[:2], -1)
        mask = torch.as_tensor(np.stack([p.mask for p in pixels]), device=self.device)
        patches = self.normalised(np.stack([p.target for p in pixels]))
        with torch.inference_mode():
            own, neighbours = seen(rows, neighbours)
            with autocast(self.device):  # the trunk is what costs; decoding stays exact
                z = self.network.fuse(patches, neighbours, mask, own).z.float()
            values = self.network.decode(z, asked.rows)
            if asked.new is not None:
                values = torch.cat([values, self.network.decode_tokens(z, asked.new)], dim=1)
            return values.cpu().numpy()

    def normalised(self, patches: NDArray[np.uint8]) -> Tensor:
        """(B, P, P, 3) uint8 -> (B, 3, P, P) float, ImageNet mean and deviation."""
        import torch

        x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        return (x - mean) / x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
