"""Catalogue of published pathology tile encoders: how to build them, licence, access and size.

This module holds no weights and imports neither torch nor timm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .encoder_spec import EncoderSpec

_CC_BY_NC_ND = "CC-BY-NC-ND-4.0"
_OWKIN_LICENCE = "Owkin non-commercial"
_GATED, _FREE = "gated", "free"


@dataclass(frozen=True)
class PublishedEncoder:
    """A published encoder and the arguments with which timm builds it.

    Attributes
    ----------
    architecture, options
        Arguments of `timm.create_model` that fit the weights.
    swiglu
        Whether the feed-forward layers are packed SwiGLU with SiLU.
    pooling
        "class" for the model's own pooled output, "class+mean" for the class token followed by the
        mean of the patch tokens.
    access
        "gated" if the licence has to be accepted on the hub first, else "free".
    megabytes
        Approximate size of the download.
    weight_layout
        Naming scheme of the weights: "timm", "vit" or "dinov2" (transformers), or "conch".
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
        """The name on the command line, such as ``uni``."""
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
        # The image tower of a CoCa. Features are taken before the projection, as its authors
        # advise for everything but comparison with text.
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

PUBLISHED_ENCODERS = {encoder.spec.name: encoder for encoder in _ENCODERS}
FULL_NAMES = {encoder.short_name: name for name, encoder in PUBLISHED_ENCODERS.items()}


def resolve_encoder_name(name: str) -> str:
    """Expand a short name: `uni` -> `hf-hub:MahmoodLab/UNI`. Other names are unchanged."""
    name = "hf-hub:" + name[len("hf_hub:") :] if name.startswith("hf_hub:") else name
    return FULL_NAMES.get(name.lower(), name)


@dataclass(frozen=True)
class EncoderWeightsInfo:
    """Weights on the Hugging Face hub: source, licence, size, and whether they are downloaded.

    Attributes
    ----------
    name
        As in a checkpoint.
    short_name
        As on the command line.
    repository
        On the hub, "" if the weights are not published there.
    access
        "gated", "free", or "" if unknown.
    megabytes
        0 if unknown.
    cached_file
        The downloaded file, None if there is none.
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
        """The size in decimal units, such as ``1.2 GB``."""
        if not self.megabytes:
            return "size unknown"
        large = self.megabytes >= 1000
        return f"{self.megabytes / 1000:.1f} GB" if large else f"{self.megabytes} MB"

    @property
    def summary(self) -> str:
        """One sentence with size, source, licence and access, shown before a download."""
        access = {
            "gated": "gated: accept the licence on its hub page and run `hf auth login` once",
            "free": "free to download",
        }.get(self.access, "access unknown")
        return (
            f"{self.name.rpartition('/')[2]}: {self.size_text} from {self.repository} on "
            f"Hugging Face; licence {self.licence or 'unknown'}; {access}."
        )


def create_weights_info(
    spec: EncoderSpec, repository: str, licence: str, cached_file: Path | None
) -> EncoderWeightsInfo:
    """Describe an encoder's weights; entries of the catalogue take precedence over `licence`.

    Parameters
    ----------
    spec
        Of the encoder; its name is looked up in the catalogue.
    repository
        On the hub, "" if the weights are not published there.
    licence
        Stated by timm, "" if unknown.
    cached_file
        The downloaded file, None if there is none.
    """
    published = PUBLISHED_ENCODERS.get(spec.name)
    return EncoderWeightsInfo(
        name=spec.name,
        short_name=spec.name if published is None else published.short_name,
        repository=repository,
        licence=(spec.licence or licence) if published is None else published.spec.licence,
        access="" if published is None else published.access,
        megabytes=0 if published is None else published.megabytes,
        dimension=spec.dimension,
        px=spec.px,
        cached_file=cached_file,
    )
