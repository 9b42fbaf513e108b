"""Hyper-parameters that the networks of all methods share, validated on construction.

It does not import torch, so that the header of a checkpoint is read quickly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from ...errors import CheckpointError


@dataclass(frozen=True)
class StackConfig:
    """One stack of attention blocks.

    Attributes
    ----------
    depth
        Number of blocks.
    ratio
        Feed-forward width over the network width (hidden = int(dim * ratio)).
    dropout
        After the output projection and in the feed-forward, training only.
    """

    depth: int = 1
    heads: int = 4
    ratio: float = 2.0
    dropout: float = 0.1

    def validate(self, name: str, width: int, min_depth: int = 0) -> None:
        """Raise CheckpointError unless a network of this width can have such a stack."""
        require_integer(f"{name} depth", self.depth, min_depth, 64)
        require_integer(f"{name} heads", self.heads, 1, 256)
        require_number(f"{name} ratio", self.ratio, 1 / width, 32.0)
        require_number(f"{name} dropout", self.dropout, 0.0, 0.99)
        if width % self.heads:
            raise CheckpointError(
                f"The network's width {width} cannot be split into {self.heads} {name} heads."
            )


ONE_BLOCK, TWO_BLOCKS = StackConfig(), StackConfig(depth=2)


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network of any method; every field is bounded on construction.

    Attributes
    ----------
    method
        Name of the method in checkpoint headers.
    genes
        Panel size G.
    dim
        Width d of the token that is kept of a spot.
    grid
        Side of the square of neighbour patches.
    members
        Networks of this shape whose mean is the prediction.
    standardise
        Whether tile features are standardised by those of their slide.
    features
        Length of the tile encoder's features where the network maps them to d by a trained layer;
        0 for features of length d that are taken as they are.
    linear
        Tile features of the linear path, 0 for none: numbers that follow the fused tokens.

    Raises
    ------
    CheckpointError
        If a value is of the wrong kind or out of range.
    """

    method: ClassVar[str]
    optional: ClassVar[tuple[str, ...]] = ("features", "linear")
    stacks: ClassVar[tuple[str, ...]] = ()

    genes: int
    dim: int = 256
    grid: int = 5
    members: int = 1
    standardise: bool = False
    features: int = 0
    linear: int = 0

    def __post_init__(self) -> None:
        require_integer("genes", self.genes, 1, 100_000)
        require_integer("dim", self.dim, 1, 8192)
        require_integer("grid", self.grid, 1, 15)
        require_integer("members", self.members, 1, 64)
        require_integer("features", self.features, 0, 16_384)
        require_integer("linear", self.linear, 0, 1024)
        if not isinstance(self.standardise, bool):
            raise CheckpointError("The network's standardise entry is neither true nor false.")
        if self.grid % 2 == 0:
            raise CheckpointError("The neighbour grid and the position kernel need an odd side.")
        for name in self.stacks:
            if not isinstance(getattr(self, name), StackConfig):
                raise CheckpointError(f"The network's {name!r} entry is not a stack of layers.")

    @property
    def feature_dim(self) -> int:
        """Length of the tile encoder's features."""
        return self.features or self.dim

    @property
    def members_dim(self) -> int:
        """Width of the fused tokens of all members."""
        return self.dim * self.members

    @property
    def token_dim(self) -> int:
        """Width of what is kept of a spot: the members' fused tokens, then the linear path's."""
        return self.members_dim + self.linear

    @property
    def gene_text_dim(self) -> int:
        """Width of the gene text features, 0 for a method without gene text."""
        return 0

    @property
    def trunk_name(self) -> str:
        """Name of the timm model that sees the pixels, "" for a method without one."""
        return ""

    @property
    def sees_pixels(self) -> bool:
        """Whether the network sees the pixels of the patch, beside the features of its tile."""
        return bool(self.trunk_name)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes an equal config.

        Without a linear path it has no entry for one, as in files of older versions.
        """
        values = asdict(self)
        for name in self.optional:
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Build from a JSON object.

        Raises CheckpointError if it is not one, or has an unknown, missing or wrong value.
        """
        values = _validate_keys("network", data, cls)
        for name in cls.stacks:
            if name in values:
                values[name] = StackConfig(**_validate_keys(name, values[name], StackConfig))
        if "genes" not in values:
            raise CheckpointError("The network description does not say how many genes there are.")
        return cls(**values)


def _validate_keys(label: str, data: Any, config_type: type) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CheckpointError(f"The {label} description is not a JSON object.")
    unknown = sorted(set(map(str, data)) - {f.name for f in fields(config_type)})
    if unknown:
        raise CheckpointError(
            f"The {label} description has an unknown entry {unknown[0]!r:.60}; "
            "a newer napari-dkan may read it."
        )
    return dict(data)


def require_integer(name: str, value: Any, low: int, high: int) -> None:
    """Raise CheckpointError unless an entry is a whole number from low to high."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise CheckpointError(
            f"The network's {name} is {value!r:.60}; it must be a whole number "
            f"from {low} to {high}."
        )


def require_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise CheckpointError unless an entry is a number from low to high."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise CheckpointError(
            f"The network's {name} is {value!r:.60}; it must be a number from {low:g} to {high:g}."
        )
