"""What a person enters about the slides of measured sections: pixel size, image, and frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import SpotsError
from ..slide import open_slide
from ..slide.pixel_size import MANUAL_ORIGIN, PixelSize
from .section_pixel_size import enter_pixel_size

if TYPE_CHECKING:
    from anndata import AnnData

    from ..slide import Slide


IMAGE_NAME_KEY, WHOLE_GLASS_KEY = "image_name", "whole_glass"  # in ``uns`` of a section

T = TypeVar("T")


@dataclass(frozen=True)
class PerSection(Generic[T]):
    """A value for all sections, and others for single ones.

    Attributes
    ----------
    option
        The option of the command line that takes it, for errors.
    default
        Of every section that is not named; None to go by the files.
    by_section
        Of sections by name.
    """

    option: str
    default: T | None = None
    by_section: Mapping[str, T] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, option: str, words: Sequence[str] | None, convert: Callable[[str], T], example: str
    ) -> PerSection[T]:
        """Parse ``VALUE`` and ``NAME=VALUE``.

        Parameters
        ----------
        convert
            Converts a value; raises ValueError for a wrong one.
        example
            A value, for errors.

        Raises
        ------
        SpotsError
            A word is neither, or one is given twice.
        """
        values: dict[str, T] = {}
        for word in words or ():
            name, _, text = str(word).rpartition("=")
            try:
                value = convert(text)
            except ValueError:
                raise SpotsError(
                    f"{option} takes {example} or NAME={example}, not {word}."
                ) from None
            if name in values:
                raise SpotsError(f"{option} is given twice for {name or 'all sections'}; give one.")
            values[name] = value
        return cls(option, values.pop("", None), values)

    def check_names(self, names: Collection[str]) -> None:
        """Raise SpotsError if a value is of none of these sections."""
        for name in self.by_section:
            if name not in names:
                raise SpotsError(
                    f"{self.option} names {name}; the sections are {', '.join(names)}."
                )

    def of(self, name: str) -> T | None:
        """Return the value of a section."""
        return self.by_section.get(name, self.default)


@dataclass(frozen=True)
class SectionChoices:
    """What is entered about sections and their slides; the files state the rest.

    Attributes
    ----------
    mpp
        um per px, which decides where files contradict each other.
    image_name
        Name or number of the image, where a slide's file has several.
    whole_glass
        The spots count from the corner of the glass, not from that of the scan area.
    glass_option
        The option of the command line that says so, for errors.
    """

    mpp: PerSection[float] = PerSection("--mpp")
    image_name: PerSection[str] = PerSection("--image-name")
    whole_glass: bool = False
    glass_option: str = "--whole-glass"

    @classmethod
    def parse(
        cls,
        mpp: Sequence[str] | None = None,
        image_name: Sequence[str] | None = None,
        whole_glass: bool = False,
        prefix: str = "--",
    ) -> SectionChoices:
        """Parse options of the command line, of which some are ``[NAME=]VALUE``.

        Parameters
        ----------
        prefix
            Of the names of the options, for errors.

        Raises
        ------
        SpotsError
            A value is wrong, or given twice.
        SlideError
            A number cannot be a pixel size.
        """
        return cls(
            PerSection.parse(
                f"{prefix}mpp", mpp, lambda text: PixelSize(float(text), MANUAL_ORIGIN).mpp, "0.5"
            ),
            PerSection.parse(f"{prefix}image-name", image_name, _parse_image_name, "IMAGE"),
            whole_glass,
            f"{prefix}whole-glass",
        )

    def check_names(self, names: Collection[str]) -> None:
        """Raise SpotsError if something is entered for none of these sections."""
        self.mpp.check_names(names)
        self.image_name.check_names(names)

    def enter(self, data: AnnData) -> AnnData:
        """Set what is entered for a section that was read, in its ``uns``."""
        name = str(data.uns["section"])
        choose_section_image(data, self.image_name.of(name), self.whole_glass)
        return enter_pixel_size(data, self.mpp.of(name))


FROM_FILES = SectionChoices()  # nothing is entered


def choose_section_image(data: AnnData, image_name: str | None, whole_glass: bool) -> AnnData:
    """Set which image of its slide's file a section is on, and from where its spots count."""
    if image_name is not None:
        data.uns[IMAGE_NAME_KEY] = image_name
    if whole_glass:
        data.uns[WHOLE_GLASS_KEY] = True
    return data


def open_section_slide(uns: Mapping[str, Any]) -> Slide:
    """Open the slide of a section; raises SlideError as `open_slide`.

    Parameters
    ----------
    uns
        Of a section, see `expression.readers.section_anndata.build_section`.
    """
    return open_slide(
        uns["image"],
        image=uns.get(IMAGE_NAME_KEY),
        whole_glass=bool(uns.get(WHOLE_GLASS_KEY, False)),
    )


def _parse_image_name(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text
