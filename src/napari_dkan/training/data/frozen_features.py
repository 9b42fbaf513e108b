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
from ...inference.device import autocast, pick_device
from ...model.encoders import EXTERNAL_ENCODER, build_encoder, resolve_encoder_spec
from ...model.encoders.encoder_spec import EncoderSpec, TileEncoder
from ...model.tensor_files import read_torch_file

if TYPE_CHECKING:
    from anndata import AnnData


N_NEIGHBORS = 25
PUBLISHED_UNI_DIMENSION = 1024  # of the published features


@dataclass(frozen=True)
class FrozenFeatures:
    """neighbors : (N, 25, d) row-major around each spot. own : (N, d) of the spots' patches.

    stored : read from files of others, whose patches are 224 px of level 0.
    """

    spec: EncoderSpec
    neighbor_features: Tensor
    target_features: Tensor
    is_from_file: bool = False


class FeatureSource(Protocol):
    """A source of ready features for one section."""

    def tile_px(self, default: int) -> int:
        """Side of the tiles it wants to see; ``default`` when it does not look at them."""
        ...

    def add_tiles(self, tiles: Tensor) -> None:
        """The (25, 3, px, px) uint8 tiles of the next labelled spot."""
        ...

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        """Features of these rows of the section."""
        ...


@dataclass(frozen=True)
class FrozenEncoderPlaceholder:
    """Stands for the encoder that made ready features; it cannot encode anything itself."""

    spec: EncoderSpec

    def tensors(self) -> dict[str, Tensor]:
        """None: a frozen encoder's weights do not travel in a checkpoint."""
        return {}

    def project(self, numbers: Tensor) -> Tensor:
        raise EncoderError(
            f"Features of {self.spec.name} cannot be had from stain statistics; prepare every "
            "section with that encoder."
        )


@dataclass(frozen=True)
class FrozenEncoder:
    """A frozen encoder on a device, for all sections of a run."""

    encoder: TileEncoder
    device: torch.device

    @classmethod
    def load(
        cls, name: str, weights: str | Path | None = None, device: str | None = None
    ) -> FrozenEncoder:
        """By name, as ``spec_of`` knows it. Raises EncoderError, or DkanError for the device."""
        picked = pick_device(device)
        return cls(build_encoder(resolve_encoder_spec(name), None, weights).to(picked), picked)

    def make_feature_source(self) -> ComputedFeatureSource:
        return ComputedFeatureSource(self)


@dataclass
class ComputedFeatureSource:
    """Features of one section, computed while its slide is read: 25 tiles per spot, once."""

    frozen_encoder: FrozenEncoder
    features: list[Tensor] = field(default_factory=list)

    def tile_px(self, default: int) -> int:
        return self.frozen_encoder.encoder.spec.px

    def add_tiles(self, tiles: Tensor) -> None:
        encoder, device = self.frozen_encoder.encoder, self.frozen_encoder.device
        mixed = autocast(device) if encoder.mixed_precision else nullcontext()
        with torch.inference_mode(), mixed:
            features = encoder(tiles.to(device)).float().cpu()
        self.features.append(features.clone())  # an inference tensor could not be trained on

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        neighbors = torch.stack(self.features)
        own = neighbors[:, N_NEIGHBORS // 2].contiguous()
        return FrozenFeatures(self.frozen_encoder.encoder.spec, neighbors, own)


@dataclass(frozen=True)
class StoredFeatureSource:
    """Tensors in the layout published with DKAN, named by ``uns`` of a section.

    ``uns['features']`` is a ``.pt`` of the spots' own patches (N, d), ``uns['neighbor_features']``
    one of their 5x5 surroundings (N, 25, d), both in the order of the section's spots.
    """

    spec: EncoderSpec | None = None

    def tile_px(self, default: int) -> int:
        return default

    def add_tiles(self, tiles: Tensor) -> None:
        """They were made elsewhere."""

    def select_features(self, data: AnnData, rows: NDArray[np.int64]) -> FrozenFeatures:
        own = _read_feature_tensor(data.uns["features"])
        neighbors = _read_feature_tensor(data.uns["neighbor_features"])
        name, spots = data.uns["section"], data.n_obs
        if own.ndim != 2 or own.shape[0] != spots:
            raise SpotsError(
                f"{data.uns['features']} has shape {tuple(own.shape)}; {name} has {spots} spots "
                "and needs one row of features for each."
            )
        wanted = (spots, N_NEIGHBORS, own.shape[1])
        if tuple(neighbors.shape) != wanted:
            raise SpotsError(
                f"{data.uns['neighbor_features']} has shape {tuple(neighbors.shape)}; "
                f"{name} needs {wanted}."
            )
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        spec = self.spec or _published_spec(own.shape[1])
        return FrozenFeatures(spec, neighbors[index], own[index], is_from_file=True)


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
