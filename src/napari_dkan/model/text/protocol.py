"""What every text encoder is: a name, a hash of its weights, and texts in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextEncoderSpec:
    """Which encoder made text features; those of two encoders never fit together.

    sha256 : of its weights file, "" when unknown. dimension : length of a feature vector.

    Raises CheckpointError when a value is of the wrong kind.
    """

    name: str
    sha256: str
    dimension: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.sha256, str):
            raise CheckpointError("the text encoder's name or hash is not a text")
        if type(self.dimension) is not int or not 1 <= self.dimension <= 16_384:
            raise CheckpointError("the text encoder's dimension is not a number from 1 to 16384")

    @property
    def label(self) -> str:
        """Name and the start of the hash, which together tell encoders apart."""
        return f"{self.name} ({self.sha256[:12]})" if self.sha256 else self.name

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> TextEncoderSpec:
        """Raises CheckpointError when data is not the JSON object of a spec."""
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(cls)}:
            raise CheckpointError("the text encoder's description is incomplete")
        return cls(**data)


class TextEncoder(Protocol):
    """A frozen network from texts to features."""

    @property
    def spec(self) -> TextEncoderSpec: ...

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> (N, dimension) float32; what is past the encoder's limit is cut off."""
        ...

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Which of the texts are cut off."""
        ...
