"""The predictor: encode patches, compute fused tokens and decode gene expression, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..spatial.spots import Spots
from .cache.token_cache import TokenCache
from .device import free_device_memory, pick_device, to_device
from .global_context import (
    CAPTURE_AREA_UM,
    CellIndex,
    ContextWindow,
    ContextWindowLayout,
    GlobalContext,
)
from .patch_features.feature_cache import PatchFeatureCache
from .patch_features.patch_loader import open_patch_loader
from .patch_features.stain_normalized import make_patch_reader
from .prediction_progress import PredictionUpdate, StageTimer
from .spot_batches import BatchProcessor, RowOrder, SpotBatch, SpotQueue
from .target import Target, TargetKind

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import DKAN, Checkpoint, Ensemble
    from ..slide import Slide
    from .patch_features.precomputed_features import PrecomputedFeatures
    from .zero_shot_genes import ZeroShotGenes


class GeneDecoder:
    """Decodes genes of a network; columns are the panel's, then those of further genes."""

    def __init__(self, network: DKAN | Ensemble, stage_timer: StageTimer | None = None) -> None:
        self._network, self._stage_timer = network, stage_timer or StageTimer()
        self._zero_shot_tokens: tuple[ZeroShotGenes, Tensor] | None = (
            None  # text tokens computed last
        )

    def decode(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> NDArray[np.float32]:
        """(B, K) values of fused tokens (B, D) for the columns ``genes``, all when None.

        A gene's values do not depend on which others are asked for.
        """
        import torch

        if isinstance(tokens, np.ndarray):
            tokens = to_device(tokens, self._network.device)
        panel = self._network.config.genes
        count = panel + (0 if zero_shot is None else len(zero_shot.genes))
        wanted = np.arange(count) if genes is None else np.asarray(genes, np.int64)
        inside = wanted < panel
        out = np.empty((len(tokens), len(wanted)), np.float32)
        with self._stage_timer("decode", len(tokens)), torch.inference_mode():
            if inside.any():
                rows = torch.from_numpy(wanted[inside]).to(tokens.device)
                out[:, inside] = self._network.decode(tokens, rows).cpu().numpy()
            if zero_shot is not None and not inside.all():
                new = self._compute_text_tokens(zero_shot)[
                    torch.from_numpy(wanted[~inside] - panel)
                ]
                out[:, ~inside] = self._network.decode_gene_tokens(tokens, new).cpu().numpy()
        return out

    def get_gene_token(
        self, column: int, zero_shot: ZeroShotGenes | None = None
    ) -> tuple[Tensor, Tensor]:
        """Text token (1, D) of a column's gene, and what multiplies its decoded numbers."""
        import torch

        panel = self._network.config.genes
        if zero_shot is not None and column >= panel:
            token = self._compute_text_tokens(zero_shot)[column - panel, None]
            return token.clone(), torch.ones((), device=token.device)
        with torch.no_grad():
            return self._network.encode_genes()[column, None], self._network.label_std[column]

    def _compute_text_tokens(self, zero_shot: ZeroShotGenes) -> Tensor:
        """(K, D) of all further genes, computed once."""
        if self._zero_shot_tokens is None or self._zero_shot_tokens[0] is not zero_shot:
            self._zero_shot_tokens = (
                zero_shot,
                self._network.encode_new_genes(zero_shot.text_features),
            )
        return self._zero_shot_tokens[1]


TARGET_BATCH_SECONDS = 0.25  # a batch is the grain of cancelling and of what appears
MAX_BATCH_SIZE = 256
FIXED_BATCH_SIZE = {"cpu": 32, "gpu": 128}
EMPTY_ROWS = np.empty(0, np.int64)
CACHED_ROWS_PER_UPDATE = 4096  # tiles known before are handed out in parts

GeneColumns = Sequence[int] | Callable[[], Sequence[int] | None] | None


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
        use_disk_cache: bool = False,
        precomputed_features: PrecomputedFeatures | None = None,
    ) -> None:
        from ..model.network.inference_optimization import optimize_for_inference

        self.slide, self.checkpoint, self.mpp = slide, checkpoint, mpp
        self.device: torch.device = pick_device(device)
        self.precomputed_features = precomputed_features
        # of a patch, in level-0 px; a file's tiles are of whole pixels
        self.patch_side_px = (
            checkpoint.patch.um / mpp
            if precomputed_features is None
            else precomputed_features.tile_side_px
        )
        self.network = optimize_for_inference(checkpoint.network, self.device, checkpoint.patch.px)
        self.patch_reader = make_patch_reader(
            slide, mpp, checkpoint.stain
        )  # what is looked at of it
        self.stage_timer = StageTimer()
        self.feature_cache = PatchFeatureCache(
            checkpoint, self.device, self.stage_timer, encoder_weights, precomputed_features
        )
        self.decoder = GeneDecoder(self.network, self.stage_timer)
        windows = ContextWindowLayout(CAPTURE_AREA_UM / mpp, slide.width, slide.height)
        self.global_context = GlobalContext(
            self.network,
            self.feature_cache,
            tissue,
            checkpoint.spot_pitch_um / mpp,
            windows,
            precomputed_features,
        )
        self.token_cache = TokenCache(self, use_disk_cache and precomputed_features is None)
        self._batch_size = 4
        self._max_batch_size = MAX_BATCH_SIZE
        self._is_batch_size_fixed = False

    @property
    def tissue(self) -> BaseGeometry:
        """What makes up the slide's context; may be changed between jobs."""
        return self.global_context.tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        self.global_context.tissue = geometry

    @property
    def token_dim(self) -> int:
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

    def count_cached_spots(self, target: Target) -> int:
        """How many of the target's tiles were predicted before, in this session or an earlier."""
        kept = self.token_cache.get_grid_tokens(target)
        return 0 if kept is None else kept.count_cached()

    def get_cached_tokens(self, target: Target) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target that were predicted before, and their fused tokens (B, D)."""
        kept = self.token_cache.get_grid_tokens(target)
        if kept is None:
            return EMPTY_ROWS, np.empty((0, self.token_dim), np.float32)
        return kept.get_cached()

    def stream(
        self,
        target: Target,
        order: RowOrder = None,
        genes: GeneColumns = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> Iterator[PredictionUpdate]:
        """Predict the target's spots.

        order : rows in the order wanted, or a function asked again before every batch.
        genes : columns to decode along with the tokens, or a function asked before every
        batch; all when None. zero_shot : genes whose columns follow the panel's, in standard
        deviations from their own mean.

        Yields an Update per batch, first of all what is known from before. Raises DkanError
        (a slide gone, memory out, an encoder that cannot be had); what was yielded stays valid.
        """
        self._check_target_supported(target)
        ask: Callable[[], Sequence[int] | None] = genes if callable(genes) else lambda: genes
        queue = SpotQueue(target.spots.xy, self.global_context.find_window_indices(target), order)
        kept = self.token_cache.get_grid_tokens(target)
        done, total = 0, len(queue)
        self.feature_cache.damaged_keys.clear()  # another try may read what failed before

        def update(
            stage: str,
            rows: NDArray[np.int64],
            fused: Tensor,
            evidence: NDArray[np.float32],
            failed: NDArray[np.int64] = EMPTY_ROWS,
        ) -> PredictionUpdate:
            columns = ask()
            values = self.decoder.decode(fused, columns, zero_shot)
            chosen = None if columns is None else tuple(columns)
            tokens = fused.cpu().numpy()
            return PredictionUpdate(
                stage, done, total, rows, values, chosen, tokens, evidence, failed
            )

        if kept is not None:
            for rows, tokens, evidence in kept.pop_cached(queue, CACHED_ROWS_PER_UPDATE):
                done += len(rows)
                yield update("known", rows, to_device(tokens, self.device), evidence)
        if not len(queue):
            return
        self.token_cache.load_features()
        batches = BatchProcessor(self, target)
        seen: tuple[CellIndex, ContextWindow] | None = None
        batch: SpotBatch | None = None
        try:
            with open_patch_loader(self.patch_reader, self.patch_side_px, self.stage_timer) as pool:
                while len(queue) or batch is not None:
                    if batch is None:
                        rows, group = queue.pop_batch(self._batch_size)
                        if seen is None or seen[0] != group:  # before its tiles: it has them too
                            members = queue.rows_in_window(group)
                            around = yield from self.global_context.compute_window(
                                target, members, group, pool
                            )
                            seen = (group, around)
                        batch = batches.request(rows, group, pool)
                    assert seen is not None
                    start = time.perf_counter()
                    following = None
                    if len(queue) and queue.next_window == seen[0]:
                        following = batches.request(*queue.pop_batch(self._batch_size), pool, batch)
                    fused, evidence, good = batches.compute_fused_tokens(batch, seen[1], pool)
                    done += len(batch.rows)
                    made = update("spots", batch.rows[good], fused, evidence, batch.rows[~good])
                    if kept is not None and made.tokens is not None and seen[1].is_complete:
                        kept.add(made.rows, made.tokens, evidence)
                    self._adapt_batch_size(len(batch.rows), time.perf_counter() - start)
                    batch = following
                    yield made
        finally:
            with self.stage_timer("store"):
                self.token_cache.flush()

    def _check_target_supported(self, target: Target) -> None:
        if (
            self.precomputed_features is None
            or not self.precomputed_features.lacks_encoder
            or target.kind is TargetKind.TILES
        ):
            return
        raise SpotsError(
            f"{self.precomputed_features.feature_file.path.name} has features of its own tiles only, and the weights to "
            "encode others are not here; predict its tiles, or give --encoder-weights."
        )

    def precompute_context(self, xy: NDArray[np.float64]) -> Iterator[PredictionUpdate]:
        """Encode what a click at each of the places (N, 2) would see, so that it need not wait."""
        target = Target(TargetKind.POINTS, Spots(xy))
        self.token_cache.load_features()
        try:
            with open_patch_loader(self.patch_reader, self.patch_side_px, self.stage_timer) as pool:
                for group in np.unique(
                    self.global_context.find_window_indices(target), axis=0
                ).tolist():
                    yield from self.global_context.compute_window(
                        target, EMPTY_ROWS, (group[0], group[1]), pool
                    )
        finally:
            self.token_cache.flush()

    def trace_for_latency(self) -> Iterator[None]:
        """Make single spots quicker; takes a second or two, yields as it goes."""
        from ..model.network.inference_optimization import trace_for_latency

        yield from trace_for_latency(self.network)

    def clear_cache(self) -> None:
        """Drop all that was computed and is in memory; what is on disk stays."""
        self.feature_cache.array.clear()
        self.global_context.clear_cache()
        self.token_cache.clear()

    def _adapt_batch_size(self, size: int, seconds: float) -> None:
        """Aim at BATCH_SECONDS a batch: quick results, quick Cancel, a busy device."""
        if self._is_batch_size_fixed:
            return
        ideal = size * TARGET_BATCH_SECONDS / max(seconds, 1e-6)
        self._batch_size = int(
            np.clip(ideal, self._batch_size / 2, self._batch_size * 2).clip(1, self._max_batch_size)
        )

    def fix_batch_size(self) -> None:
        """Batches of one size whatever the clock says, for work that nobody watches: a matrix
        product rounds by its size, so the same job then gives the same values to the last bit."""
        self._is_batch_size_fixed = True
        self._batch_size = FIXED_BATCH_SIZE["cpu" if self.device.type == "cpu" else "gpu"]

    def limit_batch_size(self, max_size: int) -> None:
        """Memory ran out: no batch above ``most`` from now on."""
        free_device_memory(self.device)
        self._batch_size = self._max_batch_size = max_size

    def normalize_patches(self, patches: NDArray[np.uint8]) -> Tensor:
        """(B, P, P, 3) uint8 -> (B, 3, P, P) float, ImageNet mean and deviation."""
        x = to_device(patches, self.device).permute(0, 3, 1, 2).float() / 255
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        return (x - mean) / x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
