"""Pathology tile encoders known by name: facts their authors publish, no weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .protocol import EncoderSpec

_CC_BY_NC_ND = "CC-BY-NC-ND-4.0"
_OWKIN_LICENCE = "Owkin non-commercial"
_GATED, _FREE = "gated", "free"


@dataclass(frozen=True)
class PublishedEncoder:
    """A published encoder and how timm builds it.

    architecture, options : arguments of `timm.create_model` that its weights fit.
    swiglu : feed-forwards are packed SwiGLU with SiLU.
    tokens : "class" for the model's own pooled output, "class+mean" for the class token
        followed by the mean of the patch tokens.
    access : "gated" where the licence has to be accepted on the hub first, else "free".
    megabytes : about how large the download is.
    layout : who named the weights: "timm", "vit" and "dinov2" of transformers, or "conch".
    """

    spec: EncoderSpec
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    pooling: str = "class"
    access: str = _GATED
    megabytes: int = 0
    weight_layout: str = "timm"

    @property
    def short_name(self) -> str:
        """What to call it on the command line: ``uni``."""
        return self.spec.name.rpartition("/")[2].lower()


def _h_optimus(version: int, licence: str) -> PublishedEncoder:
    return PublishedEncoder(
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
        megabytes=4539,
    )


_ENCODERS = (
    PublishedEncoder(
        EncoderSpec("hf-hub:MahmoodLab/UNI", dimension=1024, mpp=0.5, licence=_CC_BY_NC_ND),
        "vit_large_patch16_224",
        {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        megabytes=1213,
    ),
    PublishedEncoder(
        EncoderSpec("hf-hub:MahmoodLab/UNI2-h", dimension=1536, mpp=0.5, licence=_CC_BY_NC_ND),
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
        megabytes=2726,
    ),
    _h_optimus(0, "Apache-2.0"),
    _h_optimus(1, _CC_BY_NC_ND),
    PublishedEncoder(
        EncoderSpec("hf-hub:paige-ai/Virchow2", dimension=2560, mpp=0.5, licence=_CC_BY_NC_ND),
        "vit_huge_patch14_224",
        {
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "dynamic_img_size": True,
        },
        swiglu=True,
        pooling="class+mean",
        megabytes=2525,
    ),
    PublishedEncoder(
        # The image tower of a CoCa; its features before the projection, as its authors advise
        # for anything but comparing with text.
        EncoderSpec(
            "hf-hub:MahmoodLab/CONCH",
            dimension=512,
            px=448,
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
            licence=_CC_BY_NC_ND,
        ),
        "vit_base_patch16_224",
        {"img_size": 448, "dynamic_img_size": True},
        megabytes=802,
        weight_layout="conch",
    ),
    PublishedEncoder(
        EncoderSpec("hf-hub:owkin/phikon", dimension=768, mpp=0.5, licence=_OWKIN_LICENCE),
        "vit_base_patch16_224",
        {"img_size": 224, "dynamic_img_size": True},
        access=_FREE,
        megabytes=346,
        weight_layout="vit",
    ),
    PublishedEncoder(
        EncoderSpec("hf-hub:owkin/phikon-v2", dimension=1024, mpp=0.5, licence=_OWKIN_LICENCE),
        "vit_large_patch16_224",
        {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
        access=_FREE,
        megabytes=1213,
        weight_layout="dinov2",
    ),
)

PUBLISHED_ENCODERS = {known.spec.name: known for known in _ENCODERS}
_FULL_NAMES = {known.short_name: name for name, known in PUBLISHED_ENCODERS.items()}


def resolve_encoder_name(name: str) -> str:
    """`uni` -> `hf-hub:MahmoodLab/UNI`; any other name as it is."""
    name = "hf-hub:" + name[len("hf_hub:") :] if name.startswith("hf_hub:") else name
    return _FULL_NAMES.get(name.lower(), name)
