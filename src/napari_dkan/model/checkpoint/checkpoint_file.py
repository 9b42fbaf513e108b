"""Read and write checkpoint files.

A checkpoint is one safetensors file (docs/checkpoint-format.md). It holds the network's tensors;
with the prefix `encoder.` those of a bundled tile encoder; with the prefix `reference.`
statistics of the training data; and `text.mean` and `text.axes` if genes outside the panel can be
predicted from their text. The header's metadata holds one JSON text, `napari_dkan`, of format
version 1, 2 with stain normalisation, or 3 of another method than DKAN. Reading a checkpoint
executes no code from the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import __version__
from ...errors import CheckpointError
from ...expression.label_scale import LabelScale
from ...expression.panel import Panel
from ...file_hash import compute_sha256
from ..encoders import build_encoder
from ..encoders.encoder_spec import EncoderSpec, TileEncoder
from ..methods.method_configs import DKAN_METHOD
from ..methods.network_builder import build_network, validate_state_dict_shapes
from ..network.network_interface import ExpressionNetwork
from ..safetensors_header import read_safetensors_header
from ..stain_normalization import StainProfile, stain_to_json
from ..tensor_files import read_safetensors, write_safetensors
from ..text_basis import (
    TextBasis,
    basis_from_tensors,
    basis_to_json,
    basis_to_tensors,
    validate_basis,
)
from .checkpoint_header import (
    ENCODER_PREFIX,
    FORMAT_VERSION,
    METADATA_KEY,
    STAIN_FORMAT_VERSION,
    CheckpointHeader,
    PatchGeometry,
    explain_checkpoint_errors,
    get_title,
    is_network_tensor,
    parse_checkpoint_header,
    read_header_json,
    require_positive,
)
from .reference_serialization import (
    reference_from_tensors,
    reference_to_json,
    reference_to_tensors,
    validate_reference,
)
from .training_reference import TrainingReference


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

    network: ExpressionNetwork
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
        if self.encoder.dimension != config.feature_dim:
            raise CheckpointError(
                f"The encoder gives {self.encoder.dimension} features "
                f"but the network takes {config.feature_dim}."
            )
        basis = self.text_basis
        if basis is not None and tuple(basis.axes.shape) != (
            len(basis.mean),
            config.gene_text_dim,
        ):
            raise CheckpointError(
                f"The text basis has axes of shape {tuple(basis.axes.shape)}; "
                f"the network needs {(len(basis.mean), config.gene_text_dim)}."
            )
        if self.reference is not None:
            self.reference.validate_dimensions(config.members_dim, config.feature_dim, config.genes)
        require_positive("spot pitch in um", self.spot_pitch_um, 10_000)
        require_positive("spot diameter in um", self.spot_diameter_um, 10_000)
        if not isinstance(self.card, dict):
            raise CheckpointError("The card is not a JSON object.")

    @property
    def header(self) -> CheckpointHeader:
        """Describe it as the header of its file does."""
        return CheckpointHeader(
            config=self.network.config,
            n_parameters=sum(p.numel() for p in self.network.parameters()),
            panel=self.panel,
            label_scale=self.label_scale,
            patch=self.patch,
            spot_pitch_um=self.spot_pitch_um,
            spot_diameter_um=self.spot_diameter_um,
            encoder=self.encoder,
            has_encoder_weights=bool(self.encoder_tensors),
            gene_text=self.gene_text,
            card=self.card,
            creator=self.creator,
            stain=self.stain,
            sha256=self.sha256,
            path=self.path,
        )

    @property
    def title(self) -> str:
        """The card's title, or else the file's name."""
        return get_title(self.card, self.path)

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
    with explain_checkpoint_errors(path):
        tensor_header = read_safetensors_header(path)
        data = read_header_json(tensor_header)
        header = parse_checkpoint_header(path, tensor_header, data)
        config, shapes = header.config, tensor_header.tensors
        # Shapes are validated first: a header can claim anything, and reading allocates.
        network_shapes = {n: shape for n, shape in shapes.items() if is_network_tensor(n)}
        validate_state_dict_shapes(config, network_shapes)
        basis = validate_basis(data.get("text_basis"), shapes, config.gene_text_dim)
        reference = validate_reference(
            data.get("reference"), shapes, config.members_dim, config.feature_dim, config.genes
        )
        tensors = read_safetensors(path, list(shapes))
        network = build_network(config, {name: tensors[name] for name in network_shapes})
        encoder_tensors = {
            name.removeprefix(ENCODER_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(ENCODER_PREFIX)
        }
        if encoder_tensors:  # damaged weights are an error now, not at the first prediction
            build_encoder(header.encoder, encoder_tensors)
        return Checkpoint(
            network=network,
            panel=header.panel,
            label_scale=header.label_scale,
            patch=header.patch,
            spot_pitch_um=header.spot_pitch_um,
            spot_diameter_um=header.spot_diameter_um,
            encoder=header.encoder,
            gene_text=header.gene_text,
            card=header.card,
            creator=header.creator,
            encoder_tensors=encoder_tensors or None,
            text_basis=basis_from_tensors(basis, tensors),
            reference=reference_from_tensors(reference, tensors),
            stain=header.stain,
            sha256=header.sha256,
            path=path,
        )


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
        tensors[ENCODER_PREFIX + name] = tensor
    if checkpoint.text_basis is not None:
        tensors |= basis_to_tensors(checkpoint.text_basis)
    if checkpoint.reference is not None:
        tensors |= reference_to_tensors(checkpoint.reference)
    write_safetensors(path, tensors, {METADATA_KEY: text, "format": "pt"}, half)
    return replace(checkpoint, path=path, sha256=compute_sha256(path))


def _choose_format_version(checkpoint: Checkpoint) -> int:
    """Return the lowest version whose readers understand the file; older ones refuse it."""
    if checkpoint.network.config.method != DKAN_METHOD:
        return FORMAT_VERSION
    return 1 if checkpoint.stain is None else STAIN_FORMAT_VERSION


def _header_to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the JSON object of the header."""
    basis, reference, stain = checkpoint.text_basis, checkpoint.reference, checkpoint.stain
    config = checkpoint.network.config
    return {
        "format": _choose_format_version(checkpoint),
        **({} if config.method == DKAN_METHOD else {"method": config.method}),
        "network": config.to_json(),
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
