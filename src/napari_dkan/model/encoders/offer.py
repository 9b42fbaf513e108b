"""What there is to know about an encoder's weights before they are downloaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .known import PUBLISHED_ENCODERS
from .protocol import EncoderSpec


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
    from .weights import find_cached_weights

    name, filename, access, megabytes, licence = spec.name, None, "", 0, spec.licence
    short, repository = name, name.removeprefix("hf-hub:")
    if name in PUBLISHED_ENCODERS:
        known = PUBLISHED_ENCODERS[name]
        short, access, megabytes = known.short_name, known.access, known.megabytes
        licence = known.spec.licence
    elif repository == name:
        from .timm_net import resolve_timm_model

        what = resolve_timm_model(name)
        repository, filename = what.repository, what.filename
        licence = licence or str(what.pretrained.get("license") or "")
    here = find_cached_weights(repository, filename, spec.revision or None) if repository else None
    return EncoderWeightsInfo(name, short, repository, licence, access, megabytes, spec.dimension, spec.px, here)
