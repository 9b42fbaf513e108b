"""Refuse channels that are no RGB image, such as those of fluorescence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reader_errors import SourceError

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
_ADVICE = "an H&E slide is RGB; export the H&E image alone, as RGB"


def check_sample_type(dtype: np.dtype[Any]) -> None:
    """Raise SourceError for samples that are not bool, uint8 or uint16."""
    if dtype.kind not in "bu" or dtype.itemsize > 2:
        raise SourceError(
            f"its pixels are {dtype.name}; export it as RGB with 8 or 16 bits per channel"
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
