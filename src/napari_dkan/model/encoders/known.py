"""Pathology tile encoders known by name: facts their authors publish, no weights.

Each is gated on the Hugging Face hub: the licence has to be accepted there once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .protocol import EncoderSpec

_NC = "CC-BY-NC-ND-4.0"


@dataclass(frozen=True)
class KnownEncoder:
    """A published encoder and how timm builds it.

    architecture, options : arguments of `timm.create_model` that its weights fit.
    swiglu : feed-forwards are packed SwiGLU with SiLU.
    tokens : "class" for the model's own pooled output, "class+mean" for the class token
        followed by the mean of the patch tokens.
    """

    spec: EncoderSpec
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    tokens: str = "class"


def _h_optimus(version: int, licence: str) -> KnownEncoder:
    return KnownEncoder(
        EncoderSpec(
            f"hf-hub:bioptimus/H-optimus-{version}",
            dimension=1536,
            mpp=0.5,
            mean=(0.707223, 0.578729, 0.703617),
            std=(0.211883, 0.230117, 0.177517),
            licence=licence,
        ),
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
    )


_ALL = (
    KnownEncoder(
        EncoderSpec("hf-hub:MahmoodLab/UNI", dimension=1024, mpp=0.5, licence=_NC),
        "vit_large_patch16_224",
        {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
    ),
    KnownEncoder(
        EncoderSpec("hf-hub:MahmoodLab/UNI2-h", dimension=1536, mpp=0.5, licence=_NC),
        "vit_giant_patch14_224",
        {
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
        },
        swiglu=True,
    ),
    _h_optimus(0, "Apache-2.0"),
    _h_optimus(1, _NC),
    KnownEncoder(
        EncoderSpec("hf-hub:paige-ai/Virchow2", dimension=2560, mpp=0.5, licence=_NC),
        "vit_huge_patch14_224",
        {
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "dynamic_img_size": True,
        },
        swiglu=True,
        tokens="class+mean",
    ),
)

KNOWN = {known.spec.name: known for known in _ALL}
_SHORT = {name.rpartition("/")[2].lower(): name for name in KNOWN}


def full_name(name: str) -> str:
    """`uni` -> `hf-hub:MahmoodLab/UNI`; any other name as it is."""
    name = "hf-hub:" + name[len("hf_hub:") :] if name.startswith("hf_hub:") else name
    return _SHORT.get(name.lower(), name)
