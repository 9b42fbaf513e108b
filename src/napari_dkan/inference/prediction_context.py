"""The parts that a predictor shares with its batches, its token cache and its explanations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..model.encoders.encoder_spec import IMAGENET_MEAN, IMAGENET_STD
from .device import to_device

if TYPE_CHECKING:
    import torch
    from shapely.geometry.base import BaseGeometry
    from torch import Tensor

    from ..model import Checkpoint, ExpressionNetwork
    from ..slide import Slide
    from .gene_decoder import GeneDecoder
    from .global_context import GlobalContext
    from .patch_features.feature_cache import PatchFeatureCache
    from .patch_features.patch_geometry import PatchReader
    from .prediction_progress import StageTimer


@dataclass(frozen=True)
class PredictionContext:
    """One slide, one checkpoint and one device.

    Attributes
    ----------
    mpp : float
        um per level-0 px of the slide.
    network : ExpressionNetwork
        The checkpoint's network, optimized for inference on the device.
    patch_reader : PatchReader
        Reads patches of the slide, stain-normalized where the checkpoint requires it.
    patch_side_px : float
        Side of a patch in level-0 px.
    """

    slide: Slide
    checkpoint: Checkpoint
    mpp: float
    device: torch.device
    network: ExpressionNetwork
    patch_reader: PatchReader
    patch_side_px: float
    stage_timer: StageTimer
    feature_cache: PatchFeatureCache
    global_context: GlobalContext
    decoder: GeneDecoder

    @property
    def token_dim(self) -> int:
        """D, the length of a fused token."""
        return self.checkpoint.network.config.token_dim

    @property
    def grid_size(self) -> int:
        """Number of patches along each side of a spot's neighborhood."""
        return self.checkpoint.network.config.grid

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels of the network's input."""
        return self.checkpoint.patch.px

    @property
    def tissue(self) -> BaseGeometry:
        """Geometry in level-0 px of the slide's context; it may change between jobs."""
        return self.global_context.tissue

    def normalize_patches(self, patches: NDArray[np.uint8]) -> Tensor:
        """(B, P, P, 3) uint8 -> (B, 3, P, P) float, by the mean and deviation of ImageNet."""
        x = to_device(patches, self.device).permute(0, 3, 1, 2).float() / 255
        mean = x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
        return (x - mean) / x.new_tensor(IMAGENET_STD).view(3, 1, 1)
