"""Features of a frozen tile encoder, computed here or read from published files."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import CheckpointError, EncoderError, SpotsError
from ...inference.device import autocast
from ...inference.device_choice import pick_device
from ...model.encoders import build_encoder, resolve_encoder_spec
from ...model.encoders.combined_encoder import EncoderParts
from ...model.encoders.encoder_spec import EXTERNAL_ENCODER, EncoderSpec, TileEncoder
from ...model.tensor_files import read_torch_file

if TYPE_CHECKING:
    from anndata import AnnData


N_NEIGHBORS = 25
PUBLISHED_UNI_DIMENSION = 1024  # of the features published with DKAN


@dataclass(frozen=True)
class FrozenFeatures:
    """Tile features of N spots.

    Attributes
    ----------
    spec
        Encoder that made the features.
    neighbor_features
        (N, 25, d) features of the 5x5 tiles around each spot, row-major.
    target_features
        (N, d) features of the spots' own patches.
    is_from_file
        Whether they are read from published files, whose patches are 224 px of level 0.
    parts
        The parts of an encoder that is standardised over the training sections; the features are
        their numbers. None for features that the network takes as they are.
    """

    spec: EncoderSpec
    neighbor_features: Tensor
    target_features: Tensor
    is_from_file: bool = False
    parts: EncoderParts | None = None


class FeatureSource(Protocol):
    """Source of frozen features for one section."""

    def tile_px(self, default: int) -> int:
        """Return the side of the tiles it encodes; ``default`` when it encodes none."""
        ...

    def add_tiles(self, tiles: Tensor) -> None:
        """Take the (25, 3, px, px) uint8 tiles of the next labelled spot."""
        ...

    def for_view(self) -> ComputedFeatureSource | None:
        """Return a source of the features of an augmented view; None where there are none."""
        ...

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        """Return the features of these rows of the section."""
        ...


@dataclass(frozen=True)
class FrozenEncoderPlaceholder:
    """Placeholder for the encoder of frozen features, with its specification only."""

    spec: EncoderSpec

    def tensors(self) -> dict[str, Tensor]:
        """Return no tensors: weights of a frozen encoder are not part of a checkpoint."""
        return {}

    def project(self, numbers: Tensor) -> Tensor:
        """Raise EncoderError: it cannot encode stain statistics."""
        raise EncoderError(
            f"Features of {self.spec.name} cannot be had from stain statistics; prepare every "
            "section with that encoder."
        )


@dataclass(frozen=True)
class FrozenEncoder:
    """Frozen tile encoder on a device, shared by all sections of a run."""

    encoder: TileEncoder
    device: torch.device

    @property
    def parts(self) -> EncoderParts | None:
        """The parts of an encoder that is not standardised yet."""
        return self.encoder if isinstance(self.encoder, EncoderParts) else None

    @classmethod
    def load(
        cls, name: str, weights: str | Path | None = None, device: str | None = None
    ) -> FrozenEncoder:
        """Load an encoder by a name that `resolve_encoder_spec` knows.

        Raises
        ------
        EncoderError
            When the encoder is unknown or its weights are not available.
        DkanError
            When the device is not available.
        """
        picked = pick_device(device)
        spec = resolve_encoder_spec(name)
        path = None if weights is None else Path(weights)
        encoder = EncoderParts.load(spec, path) if spec.parts else build_encoder(spec, None, path)
        return cls(encoder.to(picked), picked)


@dataclass
class ComputedFeatureSource:
    """Features of one section, computed while its slide is read: 25 tiles per spot."""

    frozen_encoder: FrozenEncoder
    features: list[Tensor] = field(default_factory=list)

    def tile_px(self, default: int) -> int:
        return self.frozen_encoder.encoder.spec.px

    def add_tiles(self, tiles: Tensor) -> None:
        encoder, device = self.frozen_encoder.encoder, self.frozen_encoder.device
        mixed = autocast(device) if encoder.mixed_precision else nullcontext()
        with torch.inference_mode(), mixed:
            features = encoder(tiles.to(device)).float().cpu()
        self.features.append(features.clone())  # autograd refuses inference tensors

    def for_view(self) -> ComputedFeatureSource:
        return ComputedFeatureSource(self.frozen_encoder)

    def stack_features(self) -> Tensor:
        """(N, 25, d) features of the tiles that were added."""
        return torch.stack(self.features)

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        neighbor_features = self.stack_features()
        target_features = neighbor_features[:, N_NEIGHBORS // 2].contiguous()
        return FrozenFeatures(
            self.frozen_encoder.encoder.spec,
            neighbor_features,
            target_features,
            parts=self.frozen_encoder.parts,
        )


class StoredFeatureSource:
    """Tensors in the layout published with DKAN, named by ``uns`` of a section.

    ``uns['features']`` is a ``.pt`` of the spots' own patches (N, d), ``uns['neighbor_features']``
    one of their 5x5 neighbourhoods (N, 25, d), both in the order of the section's spots.
    """

    def tile_px(self, default: int) -> int:
        return default

    def add_tiles(self, tiles: Tensor) -> None:
        """Ignore the tiles: their features are stored."""

    def for_view(self) -> None:
        """Return None: the files have no views."""

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        target_features = _read_feature_tensor(data.uns["features"])
        neighbor_features = _read_feature_tensor(data.uns["neighbor_features"])
        name, n_spots = data.uns["section"], data.n_obs
        if target_features.ndim != 2 or target_features.shape[0] != n_spots:
            raise SpotsError(
                f"{data.uns['features']} has shape {tuple(target_features.shape)}; {name} has "
                f"{n_spots} spots and needs one row of features for each."
            )
        dimension = target_features.shape[1]
        expected_shape = (n_spots, N_NEIGHBORS, dimension)
        if tuple(neighbor_features.shape) != expected_shape:
            raise SpotsError(
                f"{data.uns['neighbor_features']} has shape {tuple(neighbor_features.shape)}; "
                f"{name} needs {expected_shape}."
            )
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        return FrozenFeatures(
            _published_spec(dimension),
            neighbor_features[index],
            target_features[index],
            is_from_file=True,
        )


def _published_spec(dimension: int) -> EncoderSpec:
    if dimension == PUBLISHED_UNI_DIMENSION:
        return resolve_encoder_spec("uni")
    return EncoderSpec(EXTERNAL_ENCODER, dimension=dimension)


def _read_feature_tensor(path: str) -> Tensor:
    try:
        content = read_torch_file(Path(path))
    except CheckpointError as error:
        raise SpotsError(str(error)) from None
    if not isinstance(content, Tensor) or not content.is_floating_point():
        raise SpotsError(f"{path} does not hold a tensor of features; give the published file.")
    if not torch.isfinite(content).all():
        raise SpotsError(f"{path} holds features that are not numbers; get it again.")
    return content.float()
