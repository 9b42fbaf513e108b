"""The images in one slide file: the scan is chosen, label and macro are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .reader_errors import SourceError

# "label image", "macro", "Slide 3 - overview", "macro 1280x431"; not "macrophages" or "labelled".
_AUXILIARY_NAME = re.compile(
    r"(?:^|[^a-z])(?:label|macro|overview|thumbnail|thumb)(?:[ _-]?(?:image|img|photo))?"
    r"[\d\W_x]*$",
    re.IGNORECASE,
)
_MAX_LISTED = 8


@dataclass(frozen=True)
class FileImage:
    """An image of a slide file.

    Attributes
    ----------
    name
        As the file calls it, else its number.
    width, height
        Of its finest level in px.
    n_levels
        Levels of its pyramid.
    """

    name: str
    width: int
    height: int
    n_levels: int = 1

    @property
    def is_auxiliary(self) -> bool:
        """Whether the name is that of a label, macro or thumbnail, which is never the scan."""
        return _AUXILIARY_NAME.search(self.name) is not None

    def __str__(self) -> str:
        return f"{self.name} ({self.width:,} x {self.height:,} px)"


@dataclass(frozen=True)
class FileContents:
    """The images of a file, and which of them was opened."""

    images: tuple[FileImage, ...] = ()
    index: int = 0

    @property
    def image(self) -> FileImage | None:
        """The image that was opened; None where the format has only one."""
        return self.images[self.index] if self.images else None


def choose_image(images: Sequence[FileImage], wanted: str | int | None) -> int:
    """Return the index of the wanted image, by default that of the scan.

    The scan is the largest image that is not named as a label, macro or thumbnail; of two of
    the same size the one with more levels, else the first.

    Parameters
    ----------
    images
        At least one.
    wanted
        A name, a part of it that only one image has, or a number counted from 0.

    Raises
    ------
    SourceError
        There is no such image.
    """
    if wanted is None:
        scans = [i for i, image in enumerate(images) if not image.is_auxiliary]
        return max(
            scans or range(len(images)),
            key=lambda i: (images[i].width * images[i].height, images[i].n_levels),
        )
    word = str(wanted).strip().casefold()
    names = [image.name.casefold() for image in images]
    for found in (
        [i for i, name in enumerate(names) if name == word],
        [int(word)] if word.isascii() and word.isdigit() and int(word) < len(images) else [],
        [i for i, name in enumerate(names) if word and word in name],
    ):
        if len(found) == 1:
            return found[0]
    raise SourceError(f"it has no single image {wanted}; give one of {list_images(images)}")


def list_images(images: Sequence[FileImage]) -> str:
    """Return numbers, names and sizes of images as text."""
    listed = [f"{i}: {image}" for i, image in enumerate(images[:_MAX_LISTED])]
    return ", ".join(listed) + (", ..." if len(images) > _MAX_LISTED else "")
