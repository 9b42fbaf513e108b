"""The predictor: encode patches, compute fused tokens and decode expression, batch by batch."""

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
from .context_layout import ContextWindowLayout
from .device import keep_freed_memory, to_device
from .device_choice import pick_device
from .device_errors import report_device_errors
from .gene_decoder import GeneDecoder
from .global_context import CAPTURE_AREA_UM, GlobalContext, ZoneContext
from .patch_features.feature_cache import PatchFeatureCache
from .patch_features.patch_loader import open_patch_loader
from .patch_features.stain_normalized import make_patch_reader
from .prediction_context import PredictionContext
from .prediction_progress import PredictionUpdate, StageTimer
from .spot_batches import BatchProcessor, BatchSizeController, RowOrder, SpotBatch, SpotQueue
from .target import Target, TargetKind

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import Checkpoint
    from ..slide import Slide
    from .patch_features.precomputed_features import PrecomputedFeatures
    from .zero_shot_genes import ZeroShotGenes


EMPTY_ROWS = np.empty(0, np.int64)
CACHED_ROWS_PER_UPDATE = 4096
SAMPLED_ROWS_PER_UPDATE = 128  # of a network that samples, which takes milliseconds a tile

GeneColumns = Sequence[int] | Callable[[], Sequence[int] | None] | None


class Predictor:
    """Predict expression on one slide with one checkpoint on one device.

    Features and tokens are cached for later jobs.

    Parameters
    ----------
    mpp : float
        um per level-0 px.
    tissue : BaseGeometry
        Geometry in level-0 px that makes up the slide's context.
    device : str, optional
        As for `pick_device`.
    encoder_weights : Path, optional
        Local file for an encoder whose weights are not in the checkpoint.
    use_disk_cache : bool
        Whether to cache features and tokens on disk too. Nothing is cached on disk with
        precomputed features, which are on disk already.
    precomputed_features : PrecomputedFeatures, optional
        Features from a file, see `load_precomputed_features`; their `target_from_region` gives
        what can be predicted with them.
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

        keep_freed_memory()
        self.slide, self.checkpoint, self.mpp = slide, checkpoint, mpp
        self.device: torch.device = pick_device(device)
        self.precomputed_features = precomputed_features
        # The tiles of a feature file have sides of whole level-0 px.
        self.patch_side_px = (
            checkpoint.patch.um / mpp
            if precomputed_features is None
            else precomputed_features.tile_side_px
        )
        with report_device_errors(self.device):
            self.network = optimize_for_inference(
                checkpoint.network, self.device, checkpoint.patch.px
            )
        self.patch_reader = make_patch_reader(slide, mpp, checkpoint.stain)
        self.stage_timer = StageTimer()
        self.feature_cache = PatchFeatureCache(
            checkpoint, self.device, self.stage_timer, encoder_weights, precomputed_features
        )
        self.decoder = GeneDecoder(
            self.network, self.stage_timer, fallback=GeneDecoder(checkpoint.network)
        )
        self.global_context = GlobalContext(
            self.network,
            self.feature_cache,
            tissue,
            checkpoint.spot_pitch_um / mpp,
            ContextWindowLayout(CAPTURE_AREA_UM / mpp, slide.width, slide.height),
            precomputed_features,
        )
        self.prediction_context = PredictionContext(
            slide,
            checkpoint,
            mpp,
            self.device,
            self.network,
            self.patch_reader,
            self.patch_side_px,
            self.stage_timer,
            self.feature_cache,
            self.global_context,
            self.decoder,
        )
        self.token_cache = TokenCache(
            self.prediction_context, use_disk_cache and precomputed_features is None
        )
        self.batch_sizes = BatchSizeController()

    @property
    def tissue(self) -> BaseGeometry:
        """Geometry in level-0 px of the slide's context; may be changed between jobs."""
        return self.global_context.tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        self.global_context.tissue = geometry

    def decode(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> NDArray[np.float32]:
        """Decode (B, K) values of fused tokens (B, D), see `GeneDecoder.decode`."""
        return self.decoder.decode(tokens, genes, zero_shot)

    def count_cached_spots(self, target: Target) -> int:
        """Number of the target's tiles with cached tokens, of this session or an earlier one."""
        cached = self.token_cache.get_grid_tokens(target)
        return 0 if cached is None else cached.count_cached()

    def get_cached_tokens(self, target: Target) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (B,) of the target with cached tokens, and these fused tokens (B, D)."""
        cached = self.token_cache.get_grid_tokens(target)
        if cached is None:
            return EMPTY_ROWS, np.empty((0, self.prediction_context.token_dim), np.float32)
        return cached.get_cached()

    def stream(
        self,
        target: Target,
        order: RowOrder = None,
        genes: GeneColumns = None,
        zero_shot: ZeroShotGenes | None = None,
        with_spread: bool = False,
    ) -> Iterator[PredictionUpdate]:
        """Predict the target's spots batch by batch.

        Parameters
        ----------
        order : RowOrder
            Rows in their order, or a function that is called before every batch.
        genes : GeneColumns
            Columns to decode, or a function that is called before every batch; all when None.
        zero_shot : ZeroShotGenes, optional
            Genes whose columns follow those of the panel.
        with_spread : bool
            Whether updates have the spread of the values, where the network has one.

        Yields
        ------
        PredictionUpdate
            One per batch, those with cached tokens first.

        Raises
        ------
        DkanError
            When the slide is gone, the device fails, memory does not suffice or the encoder is
            not available; updates yielded before stay valid.
        """
        with report_device_errors(self.device):
            yield from self._stream(target, order, genes, zero_shot, with_spread)

    def _stream(
        self,
        target: Target,
        order: RowOrder,
        genes: GeneColumns,
        zero_shot: ZeroShotGenes | None,
        with_spread: bool,
    ) -> Iterator[PredictionUpdate]:
        self._check_target_supported(target)
        get_columns: Callable[[], Sequence[int] | None] = (
            genes if callable(genes) else lambda: genes
        )
        queue = SpotQueue(target.spots.xy, self.global_context.find_zones(target), order)
        cached = self.token_cache.get_grid_tokens(target)
        done, total = 0, len(queue)
        self.feature_cache.damaged_keys.clear()  # another attempt may succeed

        def make_update(
            stage: str,
            rows: NDArray[np.int64],
            fused: Tensor,
            qc_features: NDArray[np.float32],
            failed: NDArray[np.int64] = EMPTY_ROWS,
        ) -> PredictionUpdate:
            columns = get_columns()
            spread = None
            if with_spread:
                values, spread = self.decoder.decode_with_spread(fused, columns, zero_shot)
            else:
                values = self.decoder.decode(fused, columns, zero_shot)
            gene_columns = None if columns is None else tuple(columns)
            tokens = fused.cpu().numpy()
            return PredictionUpdate(
                stage, done, total, rows, values, gene_columns, tokens, qc_features, failed, spread
            )

        if cached is not None:
            for rows, tokens, qc_features in cached.iter_cached(
                queue.remaining_rows,
                SAMPLED_ROWS_PER_UPDATE if self.network.draws_samples else CACHED_ROWS_PER_UPDATE,
            ):
                queue.drop(rows)
                done += len(rows)
                yield make_update("known", rows, to_device(tokens, self.device), qc_features)
        if not len(queue):
            return
        self.token_cache.load_features()
        sizes = self.batch_sizes
        batches = BatchProcessor(self.prediction_context, target, sizes)
        current: ZoneContext | None = None
        batch: SpotBatch | None = None
        try:
            with open_patch_loader(
                self.patch_reader, self.patch_side_px, self.stage_timer
            ) as loader:
                while len(queue) or batch is not None:
                    if batch is None:
                        rows, zone = queue.pop_batch(sizes.size)
                        # The context is encoded before the batch, whose tiles it contains.
                        current = yield from self.global_context.compute_context(
                            target, zone, loader, current
                        )
                        batch = batches.request(rows, loader)
                    assert current is not None
                    start = time.perf_counter()
                    next_batch, next_context = None, current
                    # Pixels are read ahead unless a context has to be encoded before.
                    if len(queue) and self.global_context.has_context(
                        target, queue.next_zone, current
                    ):
                        rows, zone = queue.pop_batch(sizes.size)
                        next_context = yield from self.global_context.compute_context(
                            target, zone, loader, current
                        )
                        next_batch = batches.request(rows, loader, batch)
                    fused, qc_features, good = batches.compute_fused_tokens(batch, current, loader)
                    done += len(batch.rows)
                    update = make_update(
                        "spots", batch.rows[good], fused, qc_features, batch.rows[~good]
                    )
                    if cached is not None and update.tokens is not None and current.is_complete:
                        cached.add(update.rows, update.tokens, qc_features)
                    sizes.adapt(len(batch.rows), time.perf_counter() - start)
                    batch, current = next_batch, next_context
                    yield update
        finally:
            with self.stage_timer("store"):
                self.token_cache.flush()

    def _check_target_supported(self, target: Target) -> None:
        features = self.precomputed_features
        if features is None or not features.lacks_encoder or target.kind is TargetKind.TILES:
            return
        raise SpotsError(
            f"{features.feature_file.path.name} has features of its own tiles only, and the "
            "weights to encode others are not here; predict its tiles, or give the encoder's "
            "weights."
        )

    def precompute_context(self, xy: NDArray[np.float64]) -> Iterator[PredictionUpdate]:
        """Encode the context windows of points (N, 2), so that a click there is answered sooner."""
        target = Target(TargetKind.POINTS, Spots(xy))
        self.token_cache.load_features()
        try:
            with (
                report_device_errors(self.device),
                open_patch_loader(
                    self.patch_reader, self.patch_side_px, self.stage_timer
                ) as loader,
            ):
                zones = np.unique(self.global_context.find_zones(target), axis=0)
                for column, row in zones.tolist():
                    yield from self.global_context.compute_context(target, (column, row), loader)
        finally:
            self.token_cache.flush()

    def trace_for_latency(self) -> Iterator[None]:
        """Compile the network for single spots in a second or two; yields between its parts."""
        from ..model.network.inference_optimization import trace_for_latency

        yield from trace_for_latency(self.network)

    def clear_cache(self) -> None:
        """Drop all cached results in memory; those on disk stay."""
        self.feature_cache.array.clear()
        self.global_context.clear_cache()
        self.token_cache.clear()
