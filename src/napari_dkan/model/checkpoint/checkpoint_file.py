"""Read and write checkpoint files.

A checkpoint is one safetensors file (docs/checkpoint-format.md). It holds the network's tensors;
with the prefix `encoder.` those of a bundled tile encoder; with the prefix `reference.`
statistics of the training data; and `text.mean` and `text.axes` if genes outside the panel can be
predicted from their text. The header's metadata holds one JSON text, `napari_dkan`, of format
version 1, or 2 with stain normalisation. Reading a checkpoint executes no code from the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import __version__
from ...errors import CheckpointError, DkanError
from ...expression.label_scale import LabelScale
from ...expression.panel import Gene, Panel
from ...file_hash import compute_sha256
from ..encoders import build_encoder
from ..encoders.encoder_spec import EncoderSpec, TileEncoder
from ..network.dkan_config import DKANConfig
from ..network.dkan_network import DKAN
from ..network.ensemble import Ensemble
from ..network.network_builder import build_network, validate_state_dict_shapes
from ..stain_normalization import StainProfile, stain_from_json, stain_to_json
from ..tensor_files import (
    SafetensorsHeader,
    parse_strict_json,
    read_safetensors,
    read_safetensors_header,
    write_safetensors,
)
from ..text.text_basis import (
    BASIS_TENSOR_NAMES,
    TextBasis,
    basis_from_tensors,
    basis_to_json,
    basis_to_tensors,
    validate_basis,
)
from .reference_serialization import (
    REFERENCE_PREFIX,
    reference_from_tensors,
    reference_to_json,
    reference_to_tensors,
    validate_reference,
)
from .training_reference import TrainingReference

FORMAT_VERSION = 2  # with stain normalisation; files without it are written as version 1
METADATA_KEY = "napari_dkan"
_ENCODER_PREFIX = "encoder."


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
class Checkpoint:
    """A trained network with its panel, scale, geometry, encoder and provenance.

    Attributes
    ----------
    spot_pitch_um, spot_diameter_um
        Of the training array.
    gene_text
        Source of the gene text features.
    card
        Free JSON: title, training_data, splits, metrics (also of the baseline), licence.
    encoder_tensors
        Weights of the tile encoder if they are bundled, else None.
    text_basis
        Projection of the text of further genes, None if there is none.
    reference
        Statistics of the training data, None if not recorded. It belongs to this network, so it has
        to be removed when the network is trained further.
    stain
        To which every slide is normalised, None for no normalisation.
    sha256, path
        Of the file it was read from or saved to; "" and None before.

    Raises
    ------
    CheckpointError
        If the parts do not fit together.
    """

    network: DKAN | Ensemble
    panel: Panel
    label_scale: LabelScale
    patch: PatchGeometry
    spot_pitch_um: float
    spot_diameter_um: float
    encoder: EncoderSpec
    gene_text: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    creator: str = f"napari-dkan {__version__}"
    encoder_tensors: dict[str, Tensor] | None = None
    text_basis: TextBasis | None = None
    reference: TrainingReference | None = None
    stain: StainProfile | None = None
    sha256: str = ""
    path: Path | None = None

    def __post_init__(self) -> None:
        config = self.network.config
        if len(self.panel) != config.genes:
            raise CheckpointError(
                f"The panel has {len(self.panel)} genes but the network predicts {config.genes}."
            )
        if self.encoder.dimension != config.dim:
            raise CheckpointError(
                f"The encoder gives {self.encoder.dimension} features "
                f"but the network takes {config.dim}."
            )
        basis = self.text_basis
        if basis is not None and tuple(basis.axes.shape) != (len(basis.mean), config.text_dim):
            raise CheckpointError(
                f"The text basis has axes of shape {tuple(basis.axes.shape)}; "
                f"the network needs {(len(basis.mean), config.text_dim)}."
            )
        if self.reference is not None:
            self.reference.validate_dimensions(
                config.dim * config.members, config.dim, config.genes
            )
        require_positive("spot pitch in um", self.spot_pitch_um, 10_000)
        require_positive("spot diameter in um", self.spot_diameter_um, 10_000)
        if not isinstance(self.card, dict):
            raise CheckpointError("The card is not a JSON object.")

    @property
    def title(self) -> str:
        """The card's title, or else the file's name."""
        title = self.card.get("title")
        if isinstance(title, str) and title.strip():
            return title.strip()
        return self.path.stem if self.path else "untitled"

    def build_tile_encoder(self, weights: str | Path | None = None) -> TileEncoder:
        """Build the tile encoder of the training, in eval mode on the CPU.

        Parameters
        ----------
        weights
            Local weights file, if the weights are neither bundled nor downloaded.

        Raises
        ------
        EncoderError
            If the weights are not available.
        """
        return build_encoder(self.encoder, self.encoder_tensors, weights)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, with the network in eval mode on the CPU, in float32.

    Names, shapes and sizes are compared with the description before anything is allocated.
    Nothing in the file is executed.

    Raises
    ------
    CheckpointError
        Of one sentence, if the file is not a valid checkpoint.
    """
    path = Path(path)
    try:
        header = read_safetensors_header(path)
        data = read_header_json(header)
        config = DKANConfig.from_json(data.get("network"))
        panel = panel_from_json(data.get("panel"))
        if len(panel) != config.genes:
            raise CheckpointError(
                f"its panel has {len(panel)} genes but its network predicts {config.genes}"
            )
        # Shapes are validated first: a header can claim anything, and reading allocates.
        network_tensors = {
            name: dtype_and_shape
            for name, dtype_and_shape in header.tensors.items()
            if not name.startswith((_ENCODER_PREFIX, REFERENCE_PREFIX))
            and name not in BASIS_TENSOR_NAMES
        }
        validate_state_dict_shapes(config, network_tensors)
        basis = validate_basis(data.get("text_basis"), header.tensors, config.text_dim)
        reference = validate_reference(
            data.get("reference"),
            header.tensors,
            config.dim * config.members,
            config.dim,
            config.genes,
        )
        tensors = read_safetensors(path, list(header.tensors))
        network = build_network(config, {name: tensors[name] for name in network_tensors})
        encoder_tensors = {
            name.removeprefix(_ENCODER_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_ENCODER_PREFIX)
        }
        spec = EncoderSpec.from_json(data.get("encoder"))
        if encoder_tensors:  # damaged weights are an error now, not at the first prediction
            build_encoder(spec, encoder_tensors)
        return Checkpoint(
            network=network,
            panel=panel,
            label_scale=label_scale_from_json(data.get("label_scale")),
            patch=patch_from_json(data.get("patch")),
            spot_pitch_um=require_entry(data, "spot_pitch_um", (int, float)),
            spot_diameter_um=require_entry(data, "spot_diameter_um", (int, float)),
            encoder=spec,
            gene_text=require_entry(data, "gene_text", str),
            card=require_entry(data, "card", dict),
            creator=require_entry(data, "creator", str),
            encoder_tensors=encoder_tensors or None,
            text_basis=basis_from_tensors(basis, tensors),
            reference=reference_from_tensors(reference, tensors),
            stain=stain_from_json(data.get("stain")),
            sha256=compute_sha256(path),
            path=path,
        )
    except DkanError as error:
        raise CheckpointError(
            f"{path} cannot be used as a checkpoint: {_format_reason(error)}"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be used as a checkpoint: {error.strerror or error}."
        ) from None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> Checkpoint:
    """Write a checkpoint atomically and return it with its path and SHA-256.

    Parameters
    ----------
    half
        Whether to store matrices in float16, half the size; the network in memory does not change.

    Raises
    ------
    CheckpointError
        If the card is not JSON.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    network = checkpoint.network
    try:
        text = json.dumps(_header_to_json(checkpoint), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be written: its card is not plain JSON ({error})."
        ) from None
    tensors = dict(network.state_dict())
    for name, tensor in (checkpoint.encoder_tensors or {}).items():
        tensors[_ENCODER_PREFIX + name] = tensor
    if checkpoint.text_basis is not None:
        tensors |= basis_to_tensors(checkpoint.text_basis)
    if checkpoint.reference is not None:
        tensors |= reference_to_tensors(checkpoint.reference)
    write_safetensors(path, tensors, {METADATA_KEY: text, "format": "pt"}, half)
    return replace(checkpoint, path=path, sha256=compute_sha256(path))


def _format_reason(error: DkanError) -> str:
    """Format an error's sentence as the second half of another."""
    text = str(error).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}."


def _header_to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the JSON object of the header."""
    basis, reference, stain = checkpoint.text_basis, checkpoint.reference, checkpoint.stain
    return {
        # An older program would ignore the stain normalisation, so it must refuse the file.
        "format": FORMAT_VERSION if stain is not None else 1,
        "network": checkpoint.network.config.to_json(),
        "panel": [
            {"symbol": g.symbol, "ensembl": g.ensembl, "name": g.name, "aliases": list(g.aliases)}
            for g in checkpoint.panel.genes
        ],
        "label_scale": {
            "target_sum": checkpoint.label_scale.target_sum,
            "base": checkpoint.label_scale.base,
            "smoothing": checkpoint.label_scale.smoothing,
        },
        "patch": {"px": checkpoint.patch.px, "um": checkpoint.patch.um},
        "spot_pitch_um": checkpoint.spot_pitch_um,
        "spot_diameter_um": checkpoint.spot_diameter_um,
        "encoder": checkpoint.encoder.to_json(),
        "gene_text": checkpoint.gene_text,
        **({} if basis is None else {"text_basis": basis_to_json(basis)}),
        **({} if reference is None else {"reference": reference_to_json(reference)}),
        **({} if stain is None else {"stain": stain_to_json(stain)}),
        "card": checkpoint.card,
        "creator": checkpoint.creator,
    }
