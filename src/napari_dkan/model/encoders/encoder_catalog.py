"""Catalogue of published pathology tile encoders: how to build them, licence, access and size.

This module holds no weights and imports neither torch nor timm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .encoder_spec import EncoderSpec

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


@dataclass(frozen=True)
class EncoderWeightsInfo:
    """Weights that can be had from the Hugging Face hub.

    name : as in a checkpoint. short : as on the command line. repository : on the hub, "" for
    nowhere. access : "gated", "free" or "" when unknown. megabytes : 0 when unknown. here : the
    file where it has been downloaded.
    """

    name: str
    short_name: str
    repository: str
    licence: str
    access: str
    megabytes: int
    dimension: int
    px: int
    cached_file: Path | None

    @property
    def size_text(self) -> str:
        """``1.2 GB``, as the hub counts."""
        if not self.megabytes:
            return "size unknown"
        large = self.megabytes >= 1000
        return f"{self.megabytes / 1000:.1f} GB" if large else f"{self.megabytes} MB"

    @property
    def summary(self) -> str:
        """Licence, access, size and source, to be read before a download."""
        access = {
            "gated": "gated: accept the licence on its hub page and run `hf auth login` once",
            "free": "free to download",
        }.get(self.access, "access unknown")
        return (
            f"{self.name.rpartition('/')[2]}: {self.size_text} from {self.repository} on Hugging Face; "
            f"licence {self.licence or 'unknown'}; {access}."
        )


def list_published_weights() -> list[EncoderWeightsInfo]:
    """The encoders known by name. Looks at the disk, not at the network."""
    return [get_weights_info_for_spec(known.spec) for known in PUBLISHED_ENCODERS.values()]


def get_weights_info(name: str, revision: str = "") -> EncoderWeightsInfo:
    """Of an encoder by name: a known one, any timm model, or ``hf-hub:owner/model``.

    Only an unknown `hf-hub:` name asks the hub. Raises EncoderError when there is none.
    """
    from . import resolve_encoder_spec

    return get_weights_info_for_spec(replace(resolve_encoder_spec(name), revision=revision))


def get_weights_info_for_spec(spec: EncoderSpec) -> EncoderWeightsInfo:
    """Of the encoder that a checkpoint names; never asks the network.

    Raises EncoderError when there is none of that name.
    """
    from .encoder_weights import find_cached_weights

    name, filename, access, megabytes, licence = spec.name, None, "", 0, spec.licence
    short, repository = name, name.removeprefix("hf-hub:")
    if name in PUBLISHED_ENCODERS:
        known = PUBLISHED_ENCODERS[name]
        short, access, megabytes = known.short_name, known.access, known.megabytes
        licence = known.spec.licence
    elif repository == name:
        from .timm_builder import resolve_timm_model

        what = resolve_timm_model(name)
        repository, filename = what.repository, what.filename
        licence = licence or str(what.pretrained.get("license") or "")
    here = find_cached_weights(repository, filename, spec.revision or None) if repository else None
    return EncoderWeightsInfo(
        name, short, repository, licence, access, megabytes, spec.dimension, spec.px, here
    )
