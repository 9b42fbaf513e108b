"""Hyper-parameters of a DKAN network and of its image branches, validated on construction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import CheckpointError
from .network_config import (
    ONE_BLOCK,
    TWO_BLOCKS,
    NetworkConfig,
    StackConfig,
    require_integer,
    require_number,
)

NO_TRUNK = "none"  # the target branch takes the tile encoder's features of the spot's own tile


def validate_trunk(trunk: Any, trunk_dim: Any, dim: int) -> None:
    """Raise CheckpointError unless a network of width `dim` can have this trunk, or none."""
    require_integer("trunk_dim", trunk_dim, 1, 16_384)
    # timm also takes addresses of hubs and folders, which it must never follow for a file.
    if not isinstance(trunk, str) or not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", trunk):
        raise CheckpointError(f"{trunk!r:.60} is not the name of a timm architecture.")
    if trunk == NO_TRUNK and trunk_dim != dim:
        raise CheckpointError(
            f"A network without a trunk has target tokens of its own width {dim}, not {trunk_dim}."
        )


@dataclass(frozen=True)
class MultiScaleConfig(NetworkConfig):
    """Shape of the image branches (docs/method.md, section 3).

    Attributes
    ----------
    trunk, trunk_dim
        timm name of the target trunk and the channels of its tokens; "none" for a target branch
        without a trained trunk, whose one token is the own tile's features (then `trunk_dim` is
        `dim`).
    kernel
        Side of the position encoding's kernel.
    fusion, global_, neighbor
        The stacks of attention blocks.
    """

    stacks: ClassVar[tuple[str, ...]] = ("fusion", "global_", "neighbor")

    trunk: str = "resnet18"
    trunk_dim: int = 512
    kernel: int = 3
    fusion: StackConfig = ONE_BLOCK
    global_: StackConfig = TWO_BLOCKS
    neighbor: StackConfig = TWO_BLOCKS

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_trunk(self.trunk, self.trunk_dim, self.dim)
        require_integer("kernel", self.kernel, 1, 31)
        if self.kernel % 2 == 0:
            raise CheckpointError("The neighbour grid and the position kernel need an odd side.")
        self.fusion.validate("fusion", self.dim)
        # The global encoder needs a first layer, before the position encoding.
        self.global_.validate("global_", self.dim, min_depth=1)
        self.neighbor.validate("neighbor", self.dim)

    @property
    def trunk_name(self) -> str:
        return "" if self.trunk == NO_TRUNK else self.trunk


@dataclass(frozen=True)
class DKANConfig(MultiScaleConfig):
    """Shape of a DKAN network: image branches, gene text and the dual path.

    Attributes
    ----------
    text_dim
        Width d_t of the gene text features.
    expression_dropout
        Dropout of the expression encoder (training only).
    image, expression, text
        The stacks of attention blocks.
    """

    method: ClassVar[str] = "dkan"
    stacks: ClassVar[tuple[str, ...]] = (
        *MultiScaleConfig.stacks,
        "image",
        "expression",
        "text",
    )

    text_dim: int = 256
    expression_dropout: float = 0.1
    image: StackConfig = TWO_BLOCKS
    expression: StackConfig = TWO_BLOCKS
    text: StackConfig = ONE_BLOCK

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("text_dim", self.text_dim, 1, 16_384)
        require_number("expression_dropout", self.expression_dropout, 0.0, 0.99)
        self.image.validate("image", self.dim)
        self.expression.validate("expression", self.dim)
        self.text.validate("text", self.text_dim)

    @property
    def gene_text_dim(self) -> int:
        return self.text_dim
