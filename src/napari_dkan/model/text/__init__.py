"""Gene text: encoders of gene descriptions, and their projection to a network's features."""

from __future__ import annotations

from .text_basis import TextBasis
from .text_encoders import DEFAULT_TEXT_ENCODER, TextEncoder, TextEncoderSpec, load_text_encoder

__all__ = [
    "DEFAULT_TEXT_ENCODER",
    "TextBasis",
    "TextEncoder",
    "TextEncoderSpec",
    "load_text_encoder",
]
