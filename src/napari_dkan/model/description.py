"""The JSON in a checkpoint's header, entry by entry; whatever is odd is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..errors import CheckpointError
from ..expression.label_scale import LabelScale
from ..expression.panel import Gene, Panel
from .tensorfile import SafetensorsHeader, parse_strict_json

FORMAT_VERSION = 2  # 2: with stain normalisation; everything else is written as 1
METADATA_KEY = "napari_dkan"


@dataclass(frozen=True)
class PatchGeometry:
    """The square around a spot: its side in pixels, as the network sees it, and in um."""

    px: int
    um: float

    def __post_init__(self) -> None:
        if type(self.px) is not int or not 8 <= self.px <= 4096:
            raise CheckpointError(f"The patch has {self.px!r:.40} px; it must have 8 to 4096.")
        require_positive("patch side in um", self.um, 10_000)

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of a patch."""
        return self.um / self.px


def read_header_json(header: SafetensorsHeader) -> dict[str, Any]:
    """The JSON object of a header. Raises CheckpointError when it is not one of ours."""
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            "it is a safetensors file, but not one of napari-dkan; if it holds encoder weights, "
            "give it where encoder weights are asked for"
        )
    data = parse_strict_json(text)
    if not isinstance(data, dict):
        raise CheckpointError("its description is not a JSON object")
    version = data.get("format")
    if type(version) is not int or version < 1:
        raise CheckpointError("its format version is missing or unknown")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"it has format version {version} and this napari-dkan {__version__} reads up to "
            f"{FORMAT_VERSION}; update napari-dkan"
        )
    return data


def require_entry(data: dict[str, Any], name: str, types: Any) -> Any:
    """An entry that has to be there and of this type, else CheckpointError."""
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, types):
        raise CheckpointError(f"its entry {name!r} is missing or of the wrong kind")
    return value


def panel_from_json(data: Any) -> Panel:
    """Raises CheckpointError, or SpotsError when a gene occurs twice."""
    if not isinstance(data, list):
        raise CheckpointError("its panel is not a list of genes")
    genes: list[Gene] = []
    for item in data:
        item = item if isinstance(item, dict) else {"symbol": None}
        aliases = item.get("aliases", [])
        texts = [item.get("symbol"), item.get("ensembl", ""), item.get("name", "")]
        if not isinstance(aliases, list) or not all(isinstance(t, str) for t in texts + aliases):
            raise CheckpointError(f"its panel has a damaged gene, number {len(genes) + 1}")
        if not texts[0]:
            raise CheckpointError(f"its panel has a gene without a symbol, number {len(genes) + 1}")
        genes.append(Gene(texts[0], texts[1], texts[2], tuple(aliases)))
    return Panel(tuple(genes))


def label_scale_from_json(data: Any) -> LabelScale:
    """Raises CheckpointError when an entry is missing or absurd."""
    data = data if isinstance(data, dict) else {}
    target_sum = require_entry(data, "target_sum", (int, float))
    base = require_entry(data, "base", (int, float))
    smoothing = require_entry(data, "smoothing", int)
    require_positive("library size of the label scale", target_sum, 1e12)
    if not 1 < base <= 1000 or not 1 <= smoothing <= 99 or smoothing % 2 == 0:
        raise CheckpointError("its label scale has an impossible base or smoothing")
    return LabelScale(float(target_sum), float(base), smoothing)


def patch_from_json(data: Any) -> PatchGeometry:
    """Raises CheckpointError when an entry is missing or absurd."""
    data = data if isinstance(data, dict) else {}
    return PatchGeometry(require_entry(data, "px", int), require_entry(data, "um", (int, float)))


def require_positive(label: str, value: Any, maximum: float) -> None:
    """Raises CheckpointError unless value is a number in (0, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value <= maximum:
        raise CheckpointError(f"The {label} is {value!r:.40}; it must be above 0, at most {maximum:g}.")
