"""The header of a checkpoint file; free of torch, so that `napari-dkan info` is quick."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import CheckpointError, DkanError
from ...expression.label_scale import LabelScale
from ...expression.panel import Gene, Panel
from ...file_hash import compute_sha256
from ..encoders.encoder_spec import EncoderSpec
from ..methods.method_configs import DKAN_METHOD, config_from_json
from ..network.network_config import NetworkConfig
from ..safetensors_header import (
    FLOAT_DTYPES,
    SafetensorsHeader,
    parse_strict_json,
    read_safetensors_header,
)
from ..stain_normalization import StainProfile, stain_from_json

FORMAT_VERSION = 3  # of another method than DKAN
STAIN_FORMAT_VERSION = 2  # of DKAN with stain normalisation; without it files are of version 1
METADATA_KEY = "napari_dkan"
GENE_FILE_KEY = "napari_dkan_genes"  # of the file of `napari-dkan genes build`
ENCODER_PREFIX = "encoder."  # of the tensors of a bundled tile encoder
REFERENCE_PREFIX = "reference."  # of the statistics of the training data
BASIS_TENSOR_NAMES = ("text.mean", "text.axes")  # of the projection of gene text
_BUFFER_NAMES = frozenset(
    {"label_mean", "label_std", "gene_features", "running_mean", "running_var", "bank"}
)


@dataclass(frozen=True)
class PatchGeometry:
    """The square around a spot: its side in pixels of the network's input, and in um."""

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
    """Read the JSON object of a header; raises CheckpointError if it is not of this package."""
    text = header.metadata.get(METADATA_KEY)
    if text is None and GENE_FILE_KEY in header.metadata:
        raise CheckpointError(
            "it describes genes and holds no network; open it where genes of "
            "`napari-dkan genes build` are asked for"
        )
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
    """Return an entry; raises CheckpointError if it is missing or of another type."""
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, types):
        raise CheckpointError(f"its entry {name!r} is missing or of the wrong kind")
    return value


def panel_from_json(data: Any) -> Panel:
    """Build the panel; raises CheckpointError, or SpotsError if a gene occurs twice."""
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
    """Build the label scale; raises CheckpointError if an entry is missing or out of range."""
    data = data if isinstance(data, dict) else {}
    target_sum = require_entry(data, "target_sum", (int, float))
    base = require_entry(data, "base", (int, float))
    smoothing = require_entry(data, "smoothing", int)
    require_positive("library size of the label scale", target_sum, 1e12)
    if not 1 < base <= 1000 or not 1 <= smoothing <= 99 or smoothing % 2 == 0:
        raise CheckpointError("its label scale has an impossible base or smoothing")
    return LabelScale(float(target_sum), float(base), smoothing)


def patch_from_json(data: Any) -> PatchGeometry:
    """Build the patch geometry; raises CheckpointError if an entry is missing or out of range."""
    data = data if isinstance(data, dict) else {}
    return PatchGeometry(require_entry(data, "px", int), require_entry(data, "um", (int, float)))


def require_positive(label: str, value: Any, maximum: float) -> None:
    """Raise CheckpointError unless value is a number in (0, maximum]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= maximum:
        raise CheckpointError(
            f"The {label} is {value!r:.40}; it must be above 0, at most {maximum:g}."
        )


@dataclass(frozen=True)
class CheckpointHeader:
    """Contents of a checkpoint as its header states them, without the tensors.

    Attributes
    ----------
    n_parameters
        Number of trained parameters of all members.
    has_encoder_weights
        Whether the weights of the tile encoder are bundled.
    sha256, path
        Of the file; "" and None before it is saved.
    """

    config: NetworkConfig
    n_parameters: int
    panel: Panel
    label_scale: LabelScale
    patch: PatchGeometry
    spot_pitch_um: float
    spot_diameter_um: float
    encoder: EncoderSpec
    has_encoder_weights: bool
    gene_text: str
    card: dict[str, Any]
    creator: str
    stain: StainProfile | None
    sha256: str
    path: Path | None

    @property
    def title(self) -> str:
        """The card's title, or else the file's name."""
        return get_title(self.card, self.path)


def get_title(card: dict[str, Any], path: Path | None) -> str:
    """Return the card's title, or else the file's name."""
    title = card.get("title")
    if isinstance(title, str) and title.strip():
        return title.strip()
    return path.stem if path else "untitled"


def read_checkpoint_header(path: str | Path) -> CheckpointHeader:
    """Read the header of a checkpoint file as data, without its tensors and without torch.

    Raises
    ------
    CheckpointError
        Of one sentence, if the header is not that of a checkpoint.
    """
    path = Path(path)
    with explain_checkpoint_errors(path):
        header = read_safetensors_header(path)
        return parse_checkpoint_header(path, header, read_header_json(header))


def parse_checkpoint_header(
    path: Path, header: SafetensorsHeader, data: dict[str, Any]
) -> CheckpointHeader:
    """Validate the JSON of a header; raises DkanError for a wrong entry."""
    config = config_from_json(data.get("method", DKAN_METHOD), data.get("network"))
    panel = panel_from_json(data.get("panel"))
    if len(panel) != config.genes:
        raise CheckpointError(
            f"its panel has {len(panel)} genes but its network predicts {config.genes}"
        )
    return CheckpointHeader(
        config=config,
        n_parameters=sum(
            math.prod(shape)
            for name, (dtype, shape) in header.tensors.items()
            if is_network_tensor(name)
            and dtype in FLOAT_DTYPES
            and name.rpartition(".")[2] not in _BUFFER_NAMES
        ),
        panel=panel,
        encoder=EncoderSpec.from_json(data.get("encoder")),
        has_encoder_weights=any(n.startswith(ENCODER_PREFIX) for n in header.tensors),
        label_scale=label_scale_from_json(data.get("label_scale")),
        patch=patch_from_json(data.get("patch")),
        spot_pitch_um=require_entry(data, "spot_pitch_um", (int, float)),
        spot_diameter_um=require_entry(data, "spot_diameter_um", (int, float)),
        gene_text=require_entry(data, "gene_text", str),
        card=require_entry(data, "card", dict),
        creator=require_entry(data, "creator", str),
        stain=stain_from_json(data.get("stain")),
        sha256=compute_sha256(path),
        path=path,
    )


def is_network_tensor(name: str) -> bool:
    """Return whether a tensor of a checkpoint file belongs to the network."""
    return not name.startswith((ENCODER_PREFIX, REFERENCE_PREFIX)) and (
        name not in BASIS_TENSOR_NAMES
    )


@contextmanager
def explain_checkpoint_errors(path: Path) -> Iterator[None]:
    """Turn errors within the block into a CheckpointError that names the file."""
    try:
        yield
    except DkanError as error:
        raise CheckpointError(
            f"{path} cannot be used as a checkpoint: {_format_reason(error)}"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be used as a checkpoint: {error.strerror or error}."
        ) from None


def _format_reason(error: DkanError) -> str:
    """Format an error's sentence as the second half of another."""
    text = str(error).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}."
