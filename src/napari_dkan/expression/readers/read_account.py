"""What a reader did with a file: what it read, left out and chose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


_log = logging.getLogger(__name__)

ACCOUNT_KEY = "read_account"  # in ``uns`` of a section
_MAX_SHOWN_NAMES = 5

LeftOut = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ReadAccount:
    """What was read of a section, and what was not, and why.

    Every reader adds to it where it leaves something out, skips a file or chooses one of several.

    Attributes
    ----------
    file
        The file or folder that was read.
    spots_read, genes_read
        How many there are in the section.
    spots_left_out, genes_left_out
        (reason, count) of those that were not read, for example ("not in tissue", 12).
    mpp
        um per px of the image, None when unknown.
    mpp_origin
        Where that pixel size comes from.
    image
        The image that was taken, "" for none.
    image_among
        Names of the images, in the file or the folder, that it was chosen from.
    notes
        Sentences about everything else, for example a file that was skipped and why.
    """

    file: str = ""
    spots_read: int = 0
    spots_left_out: LeftOut = ()
    genes_read: int = 0
    genes_left_out: LeftOut = ()
    mpp: float | None = None
    mpp_origin: str = ""
    image: str = ""
    image_among: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def leave_out_spots(self, reason: str, count: int) -> ReadAccount:
        """Return the account with spots that were not read; a count of 0 changes nothing."""
        return replace(self, spots_left_out=add_left_out(self.spots_left_out, reason, count))

    def leave_out_genes(self, reason: str, count: int) -> ReadAccount:
        """Return the account with genes that were not read; a count of 0 changes nothing."""
        return replace(self, genes_left_out=add_left_out(self.genes_left_out, reason, count))

    def add_note(self, *notes: str) -> ReadAccount:
        """Return the account with sentences that it does not have yet; "" is none."""
        return replace(self, notes=tuple(dict.fromkeys(n for n in (*self.notes, *notes) if n)))

    def merge(self, other: ReadAccount) -> ReadAccount:
        """Return both accounts as one; values that both have are those of this one."""
        merged = self
        for reason, count in other.spots_left_out:
            merged = merged.leave_out_spots(reason, count)
        for reason, count in other.genes_left_out:
            merged = merged.leave_out_genes(reason, count)
        merged = merged.add_note(*other.notes)
        missing = {
            name: getattr(other, name)
            for name in ("file", "spots_read", "genes_read", "image", "image_among")
            if not getattr(self, name)
        }
        if self.mpp is None:
            missing |= {"mpp": other.mpp, "mpp_origin": other.mpp_origin}
        return replace(merged, **missing)

    def take_slide(
        self, label: str, mpp: float | None, mpp_origin: str, image: str, among: Sequence[str]
    ) -> ReadAccount:
        """Return the account with the slide that the section is compared on.

        Parameters
        ----------
        label
            Name of the slide.
        mpp, mpp_origin
            The pixel size that is used.
        image, among
            The image that was taken of a file with several, and the names of all.
        """
        return replace(
            self,
            image=f"{label}, image {image}" if image else label,
            image_among=tuple(among),
            mpp=mpp,
            mpp_origin="" if mpp is None else mpp_origin,
        )

    def without_folders(self) -> ReadAccount:
        """Return the account with the names of file and image only, as results are shared."""
        file, image = (Path(path).name for path in (self.file, self.image))
        return replace(self, file=file, image=image)

    def to_dict(self) -> dict[str, Any]:
        """Return what is not empty as values that JSON and the ``uns`` of an h5ad can hold."""
        values = {
            "file": self.file,
            "spots_read": self.spots_read,
            "spots_left_out": dict(self.spots_left_out),
            "genes_read": self.genes_read,
            "genes_left_out": dict(self.genes_left_out),
            "mpp": self.mpp,
            "mpp_origin": self.mpp_origin,
            "image": self.image,
            "image_among": list(self.image_among),
            "notes": list(self.notes),
        }
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReadAccount:
        """Return the account of `to_dict`; what is missing or of a wrong type is left empty."""
        mpp = _to_float(values.get("mpp"))
        return cls(
            file=str(values.get("file", "")),
            spots_read=int(_to_float(values.get("spots_read")) or 0),
            spots_left_out=_from_mapping(values.get("spots_left_out")),
            genes_read=int(_to_float(values.get("genes_read")) or 0),
            genes_left_out=_from_mapping(values.get("genes_left_out")),
            mpp=mpp,
            mpp_origin="" if mpp is None else str(values.get("mpp_origin", "")),
            image=str(values.get("image", "")),
            image_among=_to_names(values.get("image_among")),
            notes=_to_names(values.get("notes")),
        )

    def lines(self) -> tuple[str, ...]:
        """Return the account as lines of text, the most important first."""
        lines = [f"read: {self.file}"] if self.file else []
        if self.spots_read or self.spots_left_out:
            lines.append(_describe(self.spots_read, "spot", self.spots_left_out))
        if self.genes_read or self.genes_left_out:
            lines.append(_describe(self.genes_read, "gene", self.genes_left_out))
        return (*lines, *self.slide_lines(), *(f"note: {note}" for note in self.notes))

    def slide_lines(self) -> tuple[str, ...]:
        """Return the lines about pixel size and image."""
        lines = []
        if self.mpp is not None:
            origin = f" ({self.mpp_origin})" if self.mpp_origin else ""
            lines.append(f"pixel size: {self.mpp:.4g} um{origin}")
        if self.image:
            lines.append(f"image: {self.image}{_describe_choice(self.image_among)}")
        return tuple(lines)


def log_account(account: ReadAccount) -> None:
    """Log an account, which ``--verbose`` of the command line prints."""
    _log.info("\n  ".join(account.lines()))


def account_of(data: AnnData) -> ReadAccount:
    """Return the account of a section, an empty one if it has none."""
    values = data.uns.get(ACCOUNT_KEY)
    return ReadAccount.from_dict(values) if isinstance(values, Mapping) else ReadAccount()


def set_account(data: AnnData, account: ReadAccount) -> None:
    """Store the account of a section in its ``uns``."""
    data.uns[ACCOUNT_KEY] = account.to_dict()


def add_notes(data: AnnData, *notes: str) -> None:
    """Add sentences to the account of a section, and log them."""
    set_account(data, account_of(data).add_note(*notes))
    for note in notes:
        _log.info(f"note: {note}")


def add_left_out(left_out: LeftOut, reason: str, count: int) -> LeftOut:
    """Return (reason, count) pairs with another one; counts of one reason are added."""
    if not count:
        return left_out
    reason = reason.replace("/", " or ")  # h5ad has no keys with a slash
    counts = dict(left_out)
    counts[reason] = counts.get(reason, 0) + int(count)
    return tuple(counts.items())


def _describe(n_read: int, noun: str, left_out: LeftOut) -> str:
    text = f"{n_read} {noun}{'' if n_read == 1 else 's'} read"
    if not left_out:
        return text
    return f"{text}; left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out)


def _describe_choice(names: tuple[str, ...]) -> str:
    if len(names) < 2:
        return ""
    shown = ", ".join(names[:_MAX_SHOWN_NAMES])
    more = ", ..." if len(names) > _MAX_SHOWN_NAMES else ""
    return f" (of {len(names)}: {shown}{more})"


def _from_mapping(values: Any) -> LeftOut:
    if not isinstance(values, Mapping):
        return ()
    pairs = ((str(reason), _to_float(count)) for reason, count in values.items())
    return tuple((reason, int(count)) for reason, count in pairs if count)


def _to_names(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, (list, tuple, np.ndarray)):
        return ()
    return tuple(map(str, values))


def _to_float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
