"""Gene text: encoders of descriptions, and the space a network sees them in."""

from __future__ import annotations

from .basis import TextBasis
from .known import DEFAULT_TEXT_ENCODER, load_text_encoder
from .protocol import TextEncoder, TextEncoderSpec

__all__ = ["DEFAULT_TEXT_ENCODER", "TextBasis", "TextEncoder", "TextEncoderSpec", "load_text_encoder"]
