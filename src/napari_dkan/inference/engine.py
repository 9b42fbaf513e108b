"""The prediction engine: pixels in, fused tokens and expression out, batch by batch.

One path serves a click, a spot file, a region and a whole slide, so all of them give the
same numbers. It yields after every batch, so whoever drives it can show the result, count
the rate and stop. Fused tokens are what a tile costs; any gene is decoded from them later,
and those of a grid are kept, so that what was predicted once is there at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..spatial.spots import Spots
from .batch import Batch, Batches
from .context import Cell, SlideContext, Surroundings
from .decoding import Decoder
from .device import free_memory, pick_device, to_device
from .features import PatchFeatures
from .job import Update
from .kept import Kept
from .queue import Order, Queue
from .reading import readers
from .restained import squares_of
from .target import Kind, Target
from .timing import Stages
from .windows import CAPTURE_UM, Windows

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import Checkpoint
    from ..slide import Slide
    from .ready.features import ReadyFeatures
    from .zero_shot import ZeroShotGenes

BATCH_SECONDS = 0.25  # a batch is the grain of cancelling and of what appears
LARGEST_BATCH = 256
STEADY_BATCH = {"cpu": 32, "gpu": 128}
NO_ROWS = np.empty(0, np.int64)
WARM_ROWS = 4096  # tiles known before are handed out in parts

Genes = Sequence[int] | Callable[[], Sequence[int] | None] | None


class Predictor:
    """One slide, one checkpoint, one device; keeps what it computed for the next job.

    tissue : geometry in level-0 px that makes up the slide's context.
    encoder_weights : local file for an encoder whose weights do not travel in the checkpoint.
    store : keep features and tokens on disk too, for the next visit to the slide.
    ready : features from a file, see `ready.fit.ready_features`; `ready.target()` is what can be
        predicted with them. Nothing is kept on disk then: the file is there already.
    """

    def __init__(
        self,
        slide: Slide,
        checkpoint: Checkpoint,
        mpp: float,
        tissue: BaseGeometry,
        device: str | None = None,
        encoder_weights: Path | None = None,
        store: bool = False,
        ready: ReadyFeatures | None = None,
    ) -> None:
        from ..model.folding import for_prediction

        self.slide, self.checkpoint, self.mpp = slide, checkpoint, mpp
        self.device: torch.device = pick_device(device)
        self.ready = ready
        # of a patch, in level-0 px; a file's tiles are of whole pixels
        self.side = checkpoint.patch.um / mpp if ready is None else ready.side
        self.network = for_prediction(checkpoint.network, self.device, checkpoint.patch.px)
        self.squares = squares_of(slide, mpp, checkpoint.stain)  # what is looked at of it
        self.stages = Stages()
        self.features = PatchFeatures(checkpoint, self.device, self.stages, encoder_weights, ready)
        self.decoder = Decoder(self.network, self.stages)
        windows = Windows(CAPTURE_UM / mpp, slide.width, slide.height)
        self.context = SlideContext(
            self.network, self.features, tissue, checkpoint.spot_pitch_um / mpp, windows, ready
        )
        self.kept = Kept(self, store and ready is None)
        self._batch = 4
        self._largest = LARGEST_BATCH
        self._steady = False

    @property
    def tissue(self) -> BaseGeometry:
        """What makes up the slide's context; may be changed between jobs."""
        return self.context.tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        self.context.tissue = geometry

    @property
    def width(self) -> int:
        """D, the length of a fused token."""
        config = self.checkpoint.network.config
        return config.dim * config.members

    def decode(
        self,
        tokens: NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> NDArray[np.float32]:
        """(B, K) values of fused tokens (B, D); genes : columns, see `Decoder.decode`."""
        return self.decoder.decode(tokens, genes, zero_shot)

    def known(self, target: Target) -> int:
        """How many of the target's tiles were predicted before, in this session or an earlier."""
        kept = self.kept.of(target)
        return 0 if kept is None else kept.count()

    def tokens_of(self, target: Target) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target that were predicted before, and their fused tokens (B, D)."""
        kept = self.kept.of(target)
        if kept is None:
            return NO_ROWS, np.empty((0, self.width), np.float32)
        return kept.take()

    def stream(
        self,
        target: Target,
        order: Order = None,
        genes: Genes = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> Iterator[Update]:
        """Predict the target's spots.

        order : rows in the order wanted, or a function asked again before every batch.
        genes : columns to decode along with the tokens, or a function asked before every
        batch; all when None. zero_shot : genes whose columns follow the panel's, in standard
        deviations from their own mean.

        Yields an Update per batch, first of all what is known from before. Raises DkanError
        (a slide gone, memory out, an encoder that cannot be had); what was yielded stays valid.
        """
        self._need_tiles(target)
        ask: Callable[[], Sequence[int] | None] = genes if callable(genes) else lambda: genes
        queue = Queue(target.spots.xy, self.context.groups(target), order)
        kept = self.kept.of(target)
        done, total = 0, len(queue)
        self.features.damaged.clear()  # another try may read what failed before

        def update(
            stage: str,
            rows: NDArray[np.int64],
            fused: Tensor,
            evidence: NDArray[np.float32],
            failed: NDArray[np.int64] = NO_ROWS,
        ) -> Update:
            columns = ask()
            values = self.decoder.decode(fused, columns, zero_shot)
            chosen = None if columns is None else tuple(columns)
            tokens = fused.cpu().numpy()
            return Update(stage, done, total, rows, values, chosen, tokens, evidence, failed)

        if kept is not None:
            for rows, tokens, evidence in kept.known(queue, WARM_ROWS):
                done += len(rows)
                yield update("known", rows, to_device(tokens, self.device), evidence)
        if not len(queue):
            return
        self.kept.read_features()
        batches = Batches(self, target)
        seen: tuple[Cell, Surroundings] | None = None
        batch: Batch | None = None
        try:
            with readers(self.squares, self.side, self.stages) as pool:
                while len(queue) or batch is not None:
                    if batch is None:
                        rows, group = queue.next(self._batch)
                        if seen is None or seen[0] != group:  # before its tiles: it has them too
                            members = queue.rows_of(group)
                            around = yield from self.context.of(target, members, group, pool)
                            seen = (group, around)
                        batch = batches.ask(rows, group, pool)
                    assert seen is not None
                    start = time.perf_counter()
                    following = None
                    if len(queue) and queue.group == seen[0]:
                        following = batches.ask(*queue.next(self._batch), pool, batch)
                    fused, evidence, good = batches.fuse(batch, seen[1], pool)
                    done += len(batch.rows)
                    made = update("spots", batch.rows[good], fused, evidence, batch.rows[~good])
                    if kept is not None and made.tokens is not None and seen[1].complete:
                        kept.add(made.rows, made.tokens, evidence)
                    self._adapt(len(batch.rows), time.perf_counter() - start)
                    batch = following
                    yield made
        finally:
            with self.stages("store"):
                self.kept.flush()

    def _need_tiles(self, target: Target) -> None:
        if self.ready is None or not self.ready.alone or target.kind is Kind.TILES:
            return
        raise SpotsError(
            f"{self.ready.file.path.name} has features of its own tiles only, and the weights to "
            "encode others are not here; predict its tiles, or give --encoder-weights."
        )

    def surround(self, xy: NDArray[np.float64]) -> Iterator[Update]:
        """Encode what a click at each of the places (N, 2) would see, so that it need not wait."""
        target = Target(Kind.POINTS, Spots(xy))
        self.kept.read_features()
        try:
            with readers(self.squares, self.side, self.stages) as pool:
                for group in np.unique(self.context.groups(target), axis=0).tolist():
                    yield from self.context.of(target, NO_ROWS, (group[0], group[1]), pool)
        finally:
            self.kept.flush()

    def quicken(self) -> Iterator[None]:
        """Make single spots quicker; takes a second or two, yields as it goes."""
        from ..model.folding import quicken

        yield from quicken(self.network)

    def forget(self) -> None:
        """Drop all that was computed and is in memory; what is on disk stays."""
        self.features.rows.clear()
        self.context.forget()
        self.kept.forget()

    def _adapt(self, size: int, seconds: float) -> None:
        """Aim at BATCH_SECONDS a batch: quick results, quick Cancel, a busy device."""
        if self._steady:
            return
        ideal = size * BATCH_SECONDS / max(seconds, 1e-6)
        self._batch = int(np.clip(ideal, self._batch / 2, self._batch * 2).clip(1, self._largest))

    def steady_batches(self) -> None:
        """Batches of one size whatever the clock says, for work that nobody watches: a matrix
        product rounds by its size, so the same job then gives the same values to the last bit."""
        self._steady = True
        self._batch = STEADY_BATCH["cpu" if self.device.type == "cpu" else "gpu"]

    def smaller_batches(self, most: int) -> None:
        """Memory ran out: no batch above ``most`` from now on."""
        free_memory(self.device)
        self._batch = self._largest = most

    def normalised(self, patches: NDArray[np.uint8]) -> Tensor:
        """(B, P, P, 3) uint8 -> (B, 3, P, P) float, ImageNet mean and deviation."""
        x = to_device(patches, self.device).permute(0, 3, 1, 2).float() / 255
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        return (x - mean) / x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
