"""A slide's colours as its scanner meant them: its own ICC profile, turned into sRGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import SourceError

# Rows changed at once: Pillow copies them twice, at four bytes a px.
ICC_BAND_ROWS = 1024


@dataclass(frozen=True, eq=False)
class IccTransform:
    """From stored RGB to sRGB; may be called from several threads at once.

    name : e.g. "ICC profile GT450 (3fa2c41b) to sRGB"; the digits tell profiles of one name apart.
    """

    name: str
    transform: Any

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 to the same."""
        from PIL import Image

        out = np.empty_like(pixels)
        for top in range(0, len(pixels), ICC_BAND_ROWS):
            band = Image.fromarray(np.ascontiguousarray(pixels[top : top + ICC_BAND_ROWS]))
            out[top : top + ICC_BAND_ROWS] = np.asarray(self.transform.apply(band))
        return out


@lru_cache(maxsize=8)
def create_icc_transform(icc_profile: bytes | None) -> IccTransform | None:
    """The change that a profile (ICC.1:2022, any version) asks for, None without a profile.

    The rendering intent is the profile's own. Unreadable when it is damaged or not of RGB.
    """
    if not icc_profile:
        return None
    from PIL import ImageCms

    advice = "open the slide without its ICC profile"
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        if profile.profile.xcolor_space.strip() != "RGB":
            raise SourceError(
                f"its ICC profile is of {profile.profile.xcolor_space.strip()} colours, "
                f"not of RGB; {advice}"
            )
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            ImageCms.Intent(profile.profile.rendering_intent),
            # Without the cache of the last pixel a transform may be shared by threads.
            ImageCms.Flags.NOCACHE,
        )
        title = " ".join((profile.profile.profile_description or "without a name").split())
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        raise SourceError(f"its ICC profile is damaged; {advice}") from error
    mark = hashlib.sha256(icc_profile).hexdigest()[:8]
    return IccTransform(f"ICC profile {title[:60]} ({mark}) to sRGB", transform)
