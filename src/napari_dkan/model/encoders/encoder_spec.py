"""The description of a tile encoder, and the protocol that every tile encoder implements."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


STAIN_ENCODER = "stain-stats"  # built in
MAX_PARTS = 8
EXTERNAL_ENCODER = "external"  # not recorded
_MAX_STAGES = 256
_OPTIONAL_ENTRIES = ("sha256", "out_indices", "parts")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderSpec:
    """The tile encoder whose features a network was trained on.

    Attributes
    ----------
    name
        "stain-stats", a timm name, "hf-hub:owner/model", the names of several parts joined by "+",
        or "external" if not recorded.
    revision
        Hub commit or weights tag, "" if unknown.
    dimension
        Length of a feature vector.
    px
        Side of the square input in pixels.
    mpp
        Micrometres per pixel of the training tiles, None if the encoder takes any.
    mean, std
        Normalisation of RGB in 0..1.
    licence
        Of the weights, "" if unknown.
    sha256
        Of the weights file, "" if unknown.
    out_indices
        Stages of a timm model whose channel means are the features, as of timm's `features_only`;
        empty for the pooled output.
    parts
        Encoders whose features are concatenated and standardised; empty for an encoder of one
        part. `px` is the side of the tiles, which every part resamples to its own.

    Raises
    ------
    CheckpointError
        If a value is of the wrong kind or out of range.
    """

    name: str
    revision: str = ""
    dimension: int = 1024
    px: int = 224
    mpp: float | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str = ""
    sha256: str = ""
    out_indices: tuple[int, ...] = ()
    parts: tuple[EncoderSpec, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "revision", "licence", "sha256"):
            if not isinstance(getattr(self, field), str):
                raise CheckpointError(f"The encoder's {field} is not a text.")
        if not self.name:
            raise CheckpointError("The encoder has no name.")
        for field, high in (("dimension", 16_384), ("px", 4096)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
                raise CheckpointError(
                    f"The encoder's {field} is {value!r:.40}; it must be a whole number "
                    f"from 1 to {high}."
                )
        if self.mpp is not None and not (_is_finite_number(self.mpp) and 0 < self.mpp < 1000):
            raise CheckpointError(f"The encoder's mpp is {self.mpp!r:.40}, which cannot be.")
        for field in ("mean", "std"):
            values = getattr(self, field)
            if not (
                isinstance(values, tuple)
                and len(values) == 3
                and all(map(_is_finite_number, values))
            ):
                raise CheckpointError(f"The encoder's {field} is not three numbers.")
        if min(self.std) <= 0:
            raise CheckpointError("The encoder's std must be above zero.")
        stages = self.out_indices
        if not isinstance(stages, tuple) or not all(
            type(i) is int and 0 <= i < _MAX_STAGES for i in stages
        ):
            raise CheckpointError("The encoder's out_indices are not a list of stages.")
        if list(stages) != sorted(set(stages)):
            raise CheckpointError("The encoder's out_indices must rise.")
        if not isinstance(self.parts, tuple) or len(self.parts) > MAX_PARTS:
            raise CheckpointError(f"The encoder's parts are not a list of at most {MAX_PARTS}.")
        if not all(isinstance(part, EncoderSpec) and not part.parts for part in self.parts):
            raise CheckpointError("A part of the encoder is not an encoder of one part.")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes an equal spec."""
        # What is empty is omitted: an older napari-dkan refuses entries it does not know.
        data = {k: v for k, v in asdict(self).items() if k not in _OPTIONAL_ENTRIES or v}
        if self.parts:
            data["parts"] = [part.to_json() for part in self.parts]
        return data

    @classmethod
    def from_json(cls, data: Any) -> EncoderSpec:
        """Build from a JSON object; raises CheckpointError if it is not that of a spec."""
        names = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or "name" not in data or not names.issuperset(data):
            raise CheckpointError("The encoder's description is incomplete or has unknown entries.")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        parts = data.get("parts", [])
        if not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise CheckpointError("The encoder's parts are not a list.")
        if any(isinstance(part, dict) and part.get("parts") for part in parts):
            raise CheckpointError("A part of the encoder is not an encoder of one part.")
        return cls(**(values | {"parts": tuple(map(cls.from_json, parts))}))


class TileEncoder(Protocol):
    """A frozen network from tiles to features, in practice a `torch.nn.Module`."""

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def mixed_precision(self) -> bool:
        """Whether half precision on a GPU is faster and changes the features little."""
        ...

    def __call__(self, tiles: Tensor) -> Tensor:
        """Encode uint8 or float RGB 0..255, (B, 3, px, px) -> float32 (B, dimension)."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any: ...

    def tensors(self) -> dict[str, Tensor]:
        """The weights that can be bundled in a checkpoint."""
        ...


def _is_finite_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) < 1e6
