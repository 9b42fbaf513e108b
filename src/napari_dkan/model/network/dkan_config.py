"""Hyper-parameters of a DKAN network, validated on construction."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...errors import CheckpointError

NO_TRUNK = "none"  # the target branch takes the tile encoder's features of the spot's own tile


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


@dataclass(frozen=True)
class DKANConfig:
    """Shape of a network (docs/method.md, section 3); every field is bounded on construction.

    Attributes
    ----------
    genes
        Panel size G.
    dim
        Width d.
    text_dim
        Width d_t of the gene text features.
    trunk, trunk_dim
        timm name of the target trunk and the channels of its tokens; "none" for a target branch
        without a trained trunk, whose one token is the own tile's features (then `trunk_dim` is
        `dim`).
    grid
        Side of the square of neighbour patches.
    kernel
        Side of the position encoding's kernel.
    expression_dropout
        Dropout of the expression encoder (training only).
    members
        Networks of this shape whose mean is the prediction.
    standardise
        Whether tile features are standardised by those of their slide.
    features
        Length of the tile encoder's features where the network maps them to d by a trained layer;
        0 for features of length d that are taken as they are.
    linear
        Tile features of the linear path, 0 for none: numbers that follow the fused tokens.
    fusion, global_, neighbor, image, expression, text
        The stacks of attention blocks.

    Raises
    ------
    CheckpointError
        If a value is of the wrong kind or out of range.
    """

    genes: int
    dim: int = 256
    text_dim: int = 256
    trunk: str = "resnet18"
    trunk_dim: int = 512
    grid: int = 5
    kernel: int = 3
    expression_dropout: float = 0.1
    members: int = 1
    standardise: bool = False
    features: int = 0
    linear: int = 0
    fusion: StackConfig = StackConfig()
    global_: StackConfig = StackConfig(depth=2)
    neighbor: StackConfig = StackConfig(depth=2)
    image: StackConfig = StackConfig(depth=2)
    expression: StackConfig = StackConfig(depth=2)
    text: StackConfig = StackConfig()

    def __post_init__(self) -> None:
        _require_integer("genes", self.genes, 1, 100_000)
        _require_integer("dim", self.dim, 1, 8192)
        _require_integer("text_dim", self.text_dim, 1, 16_384)
        _require_integer("trunk_dim", self.trunk_dim, 1, 16_384)
        _require_integer("grid", self.grid, 1, 15)
        _require_integer("kernel", self.kernel, 1, 31)
        _require_integer("members", self.members, 1, 64)
        _require_integer("features", self.features, 0, 16_384)
        _require_integer("linear", self.linear, 0, 1024)
        if not isinstance(self.standardise, bool):
            raise CheckpointError("The network's standardise entry is neither true nor false.")
        if self.grid % 2 == 0 or self.kernel % 2 == 0:
            raise CheckpointError("The neighbour grid and the position kernel need an odd side.")
        # timm also takes addresses of hubs and folders, which it must never follow for a file.
        if not isinstance(self.trunk, str) or not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", self.trunk):
            raise CheckpointError(f"{self.trunk!r:.60} is not the name of a timm architecture.")
        if self.trunk == NO_TRUNK and self.trunk_dim != self.dim:
            raise CheckpointError(
                f"A network without a trunk has target tokens of its own width {self.dim}, not "
                f"{self.trunk_dim}."
            )
        _require_number("expression_dropout", self.expression_dropout, 0.0, 0.99)
        for name in STACK_NAMES:
            stack = getattr(self, name)
            if not isinstance(stack, StackConfig):
                raise CheckpointError(f"The network's {name!r} entry is not a stack of layers.")
            width = self.text_dim if name == "text" else self.dim
            # The global encoder needs a first layer, before the position encoding.
            _require_integer(f"{name} depth", stack.depth, 1 if name == "global_" else 0, 64)
            _require_integer(f"{name} heads", stack.heads, 1, 256)
            _require_number(f"{name} ratio", stack.ratio, 1 / width, 32.0)
            _require_number(f"{name} dropout", stack.dropout, 0.0, 0.99)
            if width % stack.heads:
                raise CheckpointError(
                    f"The network's width {width} cannot be split into {stack.heads} {name} heads."
                )

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

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes an equal config.

        Without a linear path it has no entry for one, as in files of older versions.
        """
        values = asdict(self)
        for name in ("features", "linear"):
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_json(cls, data: Any) -> DKANConfig:
        """Build from a JSON object.

        Raises CheckpointError if it is not one, or has an unknown, missing or wrong value.
        """
        values = _validate_keys("network", data, cls)
        for name in STACK_NAMES:
            if name in values:
                values[name] = StackConfig(**_validate_keys(name, values[name], StackConfig))
        if "genes" not in values:
            raise CheckpointError("The network description does not say how many genes there are.")
        return cls(**values)


STACK_NAMES = ("fusion", "global_", "neighbor", "image", "expression", "text")


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


def _require_integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise CheckpointError(
            f"The network's {name} is {value!r:.60}; it must be a whole number "
            f"from {low} to {high}."
        )


def _require_number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise CheckpointError(
            f"The network's {name} is {value!r:.60}; it must be a number from {low:g} to {high:g}."
        )
