"""Translate exceptions of the image libraries into SlideError."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import DamagedTileError, SlideError
from .slide_location import is_connection_error
from .sources.slide_source import SourceError

MAX_REASON_LENGTH = 160  # letters of what a library said


class LevelRegion(NamedTuple):
    """A part of a slide in px of a level, and that level's downsample."""

    left: int
    top: int
    right: int
    bottom: int
    downsample: float


@contextmanager
def translate_reader_errors(path: Path | str, region: LevelRegion | None = None) -> Iterator[None]:
    """Turns whatever the libraries below raise into a SlideError that names the file.

    path : of a local file; a text is what to call pixels that come from elsewhere.

    Where only a `place` is read, damage in it is a DamagedTile; that the file is gone, not
    permitted or too large concerns all of it.
    Decoders raise nearly every built-in exception for damaged data, so this is the one place
    that catches Exception.
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
                f"The slide {name} cannot be reached ({shorten_reason(error)}); check the connection or "
                "the drive it is on, and try again."
            ) from error
        if isinstance(path, Path) and not os.path.exists(path):
            raise create_missing_slide_error(path) from error
        if region is not None:
            raise create_damaged_tile_error(name, region, error) from error
        raise SlideError(
            f"The slide {name} is damaged or incomplete and cannot be read "
            f"({shorten_reason(error)}); copy or export it again."
        ) from error


def create_damaged_tile_error(name: str, region: LevelRegion, error: Exception) -> DamagedTileError:
    left, top, right, bottom = (round(side * region.downsample) for side in region[:4])
    return DamagedTileError(
        f"The slide {name} is damaged between ({left:,}, {top:,}) and "
        f"({right:,}, {bottom:,}) px and cannot be read there ({shorten_reason(error)}); "
        "copy or export it again."
    )


def create_missing_slide_error(path: Path) -> SlideError:
    return SlideError(f"The slide {path.name} is gone or cannot be read any more; was {path}.")


def shorten_reason(error: Exception) -> str:
    """The first clause of what a library said, to stand in brackets.

    Libraries quote the file, and a damaged file can hold a tag of thousands of numbers.
    """
    said = (str(error).strip() or type(error).__name__).splitlines()[0].partition(";")[0]
    return (
        said.rstrip(".")
        if len(said) <= MAX_REASON_LENGTH
        else f"{said[: MAX_REASON_LENGTH - 1].rstrip()}…"
    )
