"""Translate exceptions of the image libraries into SlideError."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import DamagedTileError, SlideError

MAX_REASON_LENGTH = 160  # characters quoted from a library's message

# Errors of a network drive that is no longer connected (Windows defines fewer of them).
CONNECTION_ERRNO_NAMES = (
    "EIO ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ENOTCONN EREMOTEIO ENODEV"
)
CONNECTION_ERRNOS = {
    getattr(errno, name) for name in CONNECTION_ERRNO_NAMES.split() if hasattr(errno, name)
}


class SourceError(Exception):
    """A file is not a usable slide; the message is the end of a sentence that names the file."""


class LevelRegion(NamedTuple):
    """A rectangle in px of a level, and the downsample of that level."""

    left: int
    top: int
    right: int
    bottom: int
    downsample: float


@contextmanager
def translate_reader_errors(path: Path | str, region: LevelRegion | None = None) -> Iterator[None]:
    """Turn whatever the libraries raise in the block into a SlideError that names the file.

    Decoders raise nearly every built-in exception for damaged data, so this is the one place
    that catches Exception.

    Parameters
    ----------
    path
        A local file, or as text the name of pixels that come from elsewhere.
    region
        The part of the slide that is read, if only a part is.

    Raises
    ------
    DamagedTileError
        The region cannot be decoded.
    SlideError
        The whole slide is affected: it is gone, not permitted or too large.
    """
    name = path if isinstance(path, str) else path.name
    try:
        yield
    except SlideError:
        raise
    except SourceError as error:
        if region is not None:
            raise create_damaged_tile_error(name, region, error) from error
        raise SlideError(f"The slide {name} cannot be used: {error}.") from error
    except ImportError as error:
        raise SlideError(
            f"The slide {name} needs the package {error.name}; install it and try again."
        ) from error
    except PermissionError as error:
        raise SlideError(
            f"The slide {name} may not be read; change its permissions or copy it."
        ) from error
    except MemoryError as error:
        raise SlideError(
            f"There is not enough memory to read the slide {name}; "
            "convert it to a tiled, pyramidal TIFF."
        ) from error
    except Exception as error:
        if is_connection_error(error):
            raise SlideError(
                f"The slide {name} cannot be reached ({shorten_reason(error)}); check the "
                "connection or the drive it is on, and try again."
            ) from error
        if isinstance(path, Path) and not os.path.exists(path):
            raise create_missing_slide_error(path) from error
        if region is not None:
            raise create_damaged_tile_error(name, region, error) from error
        raise SlideError(
            f"The slide {name} is damaged or incomplete and cannot be read "
            f"({shorten_reason(error)}); copy or export it again."
        ) from error


def is_connection_error(error: BaseException) -> bool:
    """Whether the connection or the drive failed, and not the slide."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    # Compared by name: these libraries are imported only when a remote slide is read.
    library = type(error).__module__.partition(".")[0]
    if library in ("aiohttp", "botocore", "aiobotocore"):
        return not isinstance(error, ValueError)  # a ValueError is a mistyped address
    return isinstance(error, OSError) and error.errno in CONNECTION_ERRNOS


def create_damaged_tile_error(name: str, region: LevelRegion, error: Exception) -> DamagedTileError:
    """Create the error for a region that cannot be decoded."""
    left, top, right, bottom = (round(side * region.downsample) for side in region[:4])
    return DamagedTileError(
        f"The slide {name} is damaged between ({left:,}, {top:,}) and "
        f"({right:,}, {bottom:,}) px and cannot be read there ({shorten_reason(error)}); "
        "copy or export it again."
    )


def create_missing_slide_error(path: Path) -> SlideError:
    """Create the error for a slide that was deleted or moved."""
    return SlideError(f"The slide {path.name} is gone or cannot be read any more; was {path}.")


def shorten_reason(error: Exception) -> str:
    """Return the first clause of a library's message, for use in parentheses.

    Libraries quote the file, and a damaged file can have a tag of thousands of numbers.
    """
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(";")[0]
    if len(reason) <= MAX_REASON_LENGTH:
        return reason.rstrip(".")
    return f"{reason[: MAX_REASON_LENGTH - 1].rstrip()}…"
