"""Build a network from a state dict that is validated before memory is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..network.branch_encoders import TargetTrunk, find_trunk
from ..network.ensemble import combine_members, list_members
from ..network.linear_path import LinearPath
from ..network.network_config import NetworkConfig
from ..network.network_interface import ExpressionNetwork
from ..safetensors_header import FLOAT_DTYPES
from ..tensor_files import require_finite
from .method_networks import create_network


def build_network(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> ExpressionNetwork:
    """Build a network with these tensors (not copied), in eval mode.

    Raises CheckpointError if a tensor is missing, unexpected, of the wrong shape or not finite.
    """
    validate_state_dict_shapes(
        config, {n: (_get_safetensors_dtype(t), tuple(t.shape)) for n, t in tensors.items()}
    )
    require_finite(tensors)
    network = _build_meta_network(config)
    network.load_state_dict(tensors, assign=True)
    for member in list_members(network):
        trunk = find_trunk(member)
        if trunk is not None:
            _materialize_trunk_buffers(trunk)
        member.validate_tensors()
    return network.eval()


def _build_meta_network(config: NetworkConfig) -> ExpressionNetwork:
    """Build a network on the meta device, without memory, however large the file claims to be."""
    try:
        with torch.device("meta"):
            member_config = replace(config, members=1, linear=0)
            members = [create_network(member_config) for _ in range(config.members)]
            linear = None
            if config.linear:
                linear = LinearPath(
                    config.members_dim, config.feature_dim, config.linear, config.genes
                )
            return combine_members(members, linear)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
        raise CheckpointError(
            f"its target trunk {config.trunk_name} cannot be built by this version of timm"
        ) from None


@lru_cache(maxsize=16)
def _get_expected_tensors(config: NetworkConfig) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Return shape and whether it is of floats, of each tensor of such a network."""
    tensors = _build_meta_network(config).state_dict()
    return {n: (tuple(t.shape), t.is_floating_point()) for n, t in tensors.items()}


def validate_state_dict_shapes(
    config: NetworkConfig, tensors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Compare names, dtypes and shapes of tensors with those of a network.

    Parameters
    ----------
    tensors
        (dtype, shape) by name, as in a safetensors header.

    Raises
    ------
    CheckpointError
        With the first tensors that are missing, unexpected or of the wrong type or shape.
    """
    expected = _get_expected_tensors(config)
    missing = [n for n in expected if n not in tensors]
    if missing:
        raise CheckpointError(
            f"it lacks {_format_names(missing)}; it may be damaged or half-converted"
        )
    unexpected = [n for n in tensors if n not in expected]
    if unexpected:
        raise CheckpointError(f"its network has no place for {_format_names(unexpected)}")
    for name, (expected_shape, is_float) in expected.items():
        dtype, shape = tensors[name]
        if shape != expected_shape:
            raise CheckpointError(
                f"its tensor {name} has shape {shape} where {expected_shape} is needed"
            )
        if is_float != (dtype in FLOAT_DTYPES):
            raise CheckpointError(f"its tensor {name} is of type {dtype}, which does not fit")


def _get_safetensors_dtype(tensor: Tensor) -> str:
    return {torch.float32: "F32", torch.int64: "I64"}.get(tensor.dtype, str(tensor.dtype))


def _materialize_trunk_buffers(trunk: TargetTrunk) -> None:
    """Compute the constants of a trunk (of some timm models) that are not stored in files."""
    unset = [n for n, b in trunk.named_buffers() if b.is_meta]
    if not unset:
        return
    buffers = dict(TargetTrunk(trunk.name).named_buffers())
    for name in unset:
        owner, _, attribute = name.rpartition(".")
        setattr(trunk.get_submodule(owner), attribute, buffers[name])


def _format_names(names: list[str]) -> str:
    shown = ", ".join(f"{n:.80}" for n in names[:3])
    tensors = "the tensor" if len(names) == 1 else f"{len(names)} tensors:"
    return f"{tensors} {shown}{', ...' if len(names) > 3 else ''}"
