"""Configurations of all methods by their name in checkpoint headers; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ...errors import CheckpointError
from ..network.dkan_config import NO_TRUNK, DKANConfig, MultiScaleConfig, validate_trunk
from ..network.network_config import (
    ONE_BLOCK,
    TWO_BLOCKS,
    NetworkConfig,
    StackConfig,
    require_integer,
    require_number,
)

DKAN_METHOD = DKANConfig.method


@dataclass(frozen=True)
class LinearConfig(NetworkConfig):
    """Shape of a linear layer on the tile features of the spot's own tile, of which dim is the
    length."""

    method: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features:
            raise CheckpointError("A linear network takes the tile features as they are.")


@dataclass(frozen=True)
class TriplexConfig(MultiScaleConfig):
    """Shape of TRIPLEX: the image branches of DKAN, without gene text and dual path."""

    method: ClassVar[str] = "triplex"


@dataclass(frozen=True)
class BGTriplexConfig(TriplexConfig):
    """Shape of BG-TRIPLEX, whose guidance has heads and dropout of the fusion.

    Attributes
    ----------
    cells
        Squares along each axis of a patch whose nuclei and edges are a guidance token each.
    nuclei, edges
        Tile features that are statistics of nuclei and of edges, in rising order, by which the
        neighbours are guided; both empty with an encoder that has none.
    """

    method: ClassVar[str] = "bgtriplex"
    optional: ClassVar[tuple[str, ...]] = (*TriplexConfig.optional, "nuclei", "edges")

    cells: int = 4
    nuclei: tuple[int, ...] = ()
    edges: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("cells", self.cells, 1, 16)
        for name in ("nuclei", "edges"):
            columns = getattr(self, name)
            if not isinstance(columns, tuple):
                raise CheckpointError(f"The network's {name!r} entry is not a list of features.")
            for column in columns:
                require_integer(name, column, 0, self.feature_dim - 1)
            if list(columns) != sorted(set(columns)):
                raise CheckpointError(f"The features in the network's {name!r} entry must rise.")
        if bool(self.nuclei) != bool(self.edges):
            raise CheckpointError("The network has features of nuclei without edges, or reverse.")

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Features of nuclei and of edges that guide the neighbours, () where there are none."""
        return (self.nuclei, self.edges) if self.nuclei else ()

    @property
    def sees_pixels(self) -> bool:
        return True

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """See `NetworkConfig.from_json`."""
        if isinstance(data, dict):
            data = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return super().from_json(data)


@dataclass(frozen=True)
class GeneDMLConfig(MultiScaleConfig):
    """Shape of Gene-DML: the image branches of DKAN, an expression encoder and a head.

    Attributes
    ----------
    expression_dropout
        Dropout of the expression encoder and of the head (training only).
    """

    method: ClassVar[str] = "genedml"

    expression_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("expression_dropout", self.expression_dropout, 0.0, 0.99)


@dataclass(frozen=True)
class RetrievalConfig(NetworkConfig):
    """Shape of a network that averages the measured expression of the nearest training spots.

    Attributes
    ----------
    bank
        Number of training spots that are stored, N.
    top_k
        Number of spots that are averaged.
    dropout
        Of the projection heads, training only.
    """

    bank: int = 1
    top_k: int = 50
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("bank", self.bank, 1, 1_000_000)
        require_integer("top_k", self.top_k, 1, 10_000)
        require_number("dropout", self.dropout, 0.0, 0.99)


@dataclass(frozen=True)
class BleepConfig(RetrievalConfig):
    """Shape of BLEEP."""

    method: ClassVar[str] = "bleep"


@dataclass(frozen=True)
class MclSTExpConfig(RetrievalConfig):
    """Shape of mclSTExp.

    Attributes
    ----------
    positions
        Number of array positions along each axis that have an embedding.
    spot
        The attention blocks over the spots of a section.
    """

    method: ClassVar[str] = "mclstexp"
    stacks: ClassVar[tuple[str, ...]] = ("spot",)

    positions: int = 128
    spot: StackConfig = TWO_BLOCKS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("positions", self.positions, 1, 4096)
        self.spot.validate("spot", self.dim)


@dataclass(frozen=True)
class StemConfig(NetworkConfig):
    """Shape of Stem.

    Attributes
    ----------
    tokens
        Tokens of the blocks, each a mixture of all genes; 0 for one of each gene, as published.
    samples
        Samples of a tile, an even number.
    steps
        Steps from noise to a sample.
    dropout
        Of the embedding of the tile, training only.
    blocks
        The blocks that are modulated by tile and noise level.
    """

    method: ClassVar[str] = "stem"
    stacks: ClassVar[tuple[str, ...]] = ("blocks",)

    tokens: int = 4
    samples: int = 8
    steps: int = 8
    dropout: float = 0.1
    blocks: StackConfig = TWO_BLOCKS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("tokens", self.tokens, 0, 4096)
        require_integer("samples", self.samples, 2, 1024)
        require_integer("steps", self.steps, 1, 1000)
        require_number("dropout", self.dropout, 0.0, 0.99)
        self.blocks.validate("blocks", self.dim)
        if self.samples % 2:
            raise CheckpointError("The network's samples are pairs, so their number is even.")


@dataclass(frozen=True)
class HiFusionConfig(NetworkConfig):
    """Shape of HiFusion.

    Attributes
    ----------
    trunk, trunk_dim
        timm name of the encoder of the sub-patches of all levels, and the channels of its tokens;
        "none" for a small convolutional stack, with the tile features as the first level (then
        `trunk_dim` is `dim`).
    finest
        Sub-patches along each side of the patch at the last of the three levels; the first is the
        whole patch, the second 2x2.
    region
        The attention blocks over the tiles of the region.
    fusion
        The cross-attention from the region to the hierarchy.
    """

    method: ClassVar[str] = "hifusion"
    stacks: ClassVar[tuple[str, ...]] = ("region", "fusion")

    trunk: str = NO_TRUNK
    trunk_dim: int = 256
    finest: int = 4
    region: StackConfig = ONE_BLOCK
    fusion: StackConfig = ONE_BLOCK

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_trunk(self.trunk, self.trunk_dim, self.dim)
        require_integer("finest", self.finest, 3, 16)
        self.region.validate("region", self.dim)
        self.fusion.validate("fusion", self.dim, min_depth=1)

    @property
    def trunk_name(self) -> str:
        return "" if self.trunk == NO_TRUNK else self.trunk

    @property
    def sees_pixels(self) -> bool:
        return True

    @property
    def sides(self) -> tuple[int, int, int]:
        """Sub-patches along each side of the patch, by level."""
        return 1, 2, self.finest


CONFIGS: dict[str, type[NetworkConfig]] = {
    c.method: c
    for c in (
        DKANConfig,
        TriplexConfig,
        BGTriplexConfig,
        LinearConfig,
        BleepConfig,
        MclSTExpConfig,
        StemConfig,
        GeneDMLConfig,
        HiFusionConfig,
    )
}
TITLES = {
    DKAN_METHOD: "DKAN",
    "triplex": "TRIPLEX",
    "bgtriplex": "BG-TRIPLEX",
    "linear": "Linear (ST-Net)",
    "bleep": "BLEEP",
    "mclstexp": "mclSTExp",
    "stem": "Stem",
    "genedml": "Gene-DML",
    "hifusion": "HiFusion",
}


def config_from_json(method: Any, data: Any) -> NetworkConfig:
    """Build the configuration of a method; raises CheckpointError for an unknown method."""
    if not isinstance(method, str) or method not in CONFIGS:
        raise CheckpointError(
            f"its method {method!r:.60} is unknown here; a newer napari-dkan may read it"
        )
    return CONFIGS[method].from_json(data)
