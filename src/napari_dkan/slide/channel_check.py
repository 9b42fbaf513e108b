"""Refuse channels that are no RGB image, such as those of fluorescence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .reader_errors import SourceError

if TYPE_CHECKING:
    from .sources.slide_source import TiledSource

# Names that say nothing about a channel, and those of the channels of an RGB image.
_PLAIN_NAME = re.compile(
    r"(?:channel|chan|ch|c|s|band|sample|component|image)?[\s_:#.-]*[\d:]*"
    r"|r|g|b|a|red|green|blue|alpha|opacity|rgba?|gr[ae]y|bright ?field|h&?e",
    re.IGNORECASE,
)
_STAINS = re.compile(
    r"dapi|hoechst|draq ?\d|fitc|tritc|texas ?red|alexa|rhodamine|[ae]?[gyr]fp|cfp|mcherry"
    r"|cy ?[3579]|af ?\d{3}|fluor",
    re.IGNORECASE,
)
_PRIMARIES = ("FF0000", "00FF00", "0000FF")
# Of the sampled opacities of an RGBA image, at least so many are full, and full or none.
_MIN_OPAQUE, _MIN_OPAQUE_OR_CLEAR = 0.05, 0.9
# Places of samples as shares of the height and the width, the middle first.
_SAMPLE_PLACES = sorted(product((0.5, 0.2, 0.8), repeat=2), key=lambda at: at != (0.5, 0.5))
_SAMPLE_PX = 256
_MAX_CAMERA_BITS = 14
_ADVICE = "an H&E slide is RGB; export the H&E image alone, as RGB"


def check_sample_type(dtype: np.dtype[Any]) -> None:
    """Raise SourceError for samples that are not bool, uint8 or uint16."""
    if dtype.kind not in "bu" or dtype.itemsize > 2:
        raise SourceError(
            f"its pixels are {dtype.name}; export it as RGB with 8 or 16 bits per channel"
        )


def check_used_bits(dtype: np.dtype[Any], source: TiledSource) -> None:
    """Refuse 16-bit samples that use 14 bits or fewer, which would be read as nearly black.

    Cameras store 10, 12 or 14 bits in 16. What cannot be decoded is not judged.

    Parameters
    ----------
    dtype
        Of the stored samples.
    source
        Its coarsest level is sampled, until a bright pixel is found.

    Raises
    ------
    SourceError
        Names the range.
    """
    if dtype != np.uint16:
        return
    level = len(source.levels) - 1
    width, height = source.levels[level].width, source.levels[level].height
    brightest = 0
    for down, across in _SAMPLE_PLACES:
        x = max(0, int(across * width) - _SAMPLE_PX // 2)
        y = max(0, int(down * height) - _SAMPLE_PX // 2)
        size = min(_SAMPLE_PX, width - x), min(_SAMPLE_PX, height - y)
        try:
            brightest = max(brightest, int(source.read(level, x, y, *size).max()))
        except (SourceError, OSError, ValueError, RuntimeError):
            return
        if brightest >= 1 << (_MAX_CAMERA_BITS - 8):
            return
    bits = 8 + brightest.bit_length()
    raise SourceError(
        f"its pixels of 16 bits stay below {1 << bits:,} of 65,536, as of a camera with fewer, "
        "and would be nearly black; export it with 8 bits per channel"
    )


def check_channels(count: int, names: Sequence[str] = (), colors: Sequence[str] = ()) -> None:
    """Refuse channels whose number, names or colors are not those of an RGB image.

    Parameters
    ----------
    count
        Number of channels.
    names
        As the file gives them, "" for none; empty without names.
    colors
        RRGGBB of each; empty without colors.

    Raises
    ------
    SourceError
        Names what was seen.
    """
    shown = [name.strip() for name in names if name.strip()]
    listed = _list_names(names)
    if count not in (1, 3, 4):
        raise channels_error(count, names)
    special = {name for name in shown if _PLAIN_NAME.fullmatch(name) is None}
    if len(special) > 1 or any(_STAINS.search(name) for name in special):
        noun = "channel" if count == 1 else "channels"
        raise SourceError(f"it has {count} {noun} of other stains{listed}; {_ADVICE}")
    given = [color.strip().lstrip("#").upper()[:6] for color in colors]
    primary = [color for color in given if color in _PRIMARIES]
    if count >= 3 and len(set(given)) == len(given) >= 3 and tuple(primary) != _PRIMARIES:
        raise SourceError(
            f"its {count} channels have the colours {', '.join(given)} and not red, green and "
            f"blue; {_ADVICE}"
        )


def channels_error(count: int, names: Sequence[str] = ()) -> SourceError:
    """Return the error for a wrong number of channels."""
    return SourceError(f"it has {count} channels{_list_names(names)}; {_ADVICE}")


def _list_names(names: Sequence[str]) -> str:
    shown = [name.strip() for name in names if name.strip()]
    return f" ({', '.join(shown[:6])})" if shown else ""


def is_opacity(samples: NDArray[Any]) -> bool:
    """Whether samples of a fourth channel look like opacity: full or none nearly everywhere."""
    if not samples.size:
        return False
    full = True if samples.dtype.kind == "b" else np.iinfo(samples.dtype).max
    opaque = float((samples == full).mean())
    return opaque >= _MIN_OPAQUE and opaque + float((samples == 0).mean()) >= _MIN_OPAQUE_OR_CLEAR


def check_fourth_channel(samples: NDArray[Any], names: Sequence[str] = ()) -> None:
    """Refuse a fourth channel that is not opacity, by its name or by samples of it.

    Raises
    ------
    SourceError
        It is another channel.
    """
    if len(names) == 4 and names[3].strip().casefold() in ("a", "alpha", "opacity"):
        return
    if not is_opacity(samples):
        raise SourceError(
            f"it has 4 channels of which the fourth is not opacity, as in fluorescence; {_ADVICE}"
        )
