"""Find the measured sections in a file or folder without reading the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .....errors import SpotsError
from .....expression.readers.discovery import find_sections
from .....expression.readers.image_files import find_image_by_stem
from .....expression.readers.layouts.her2st_sections import find_her2st_files, find_her2st_root
from .....expression.readers.library_choice import list_file_libraries
from .....expression.readers.prefixed_files import find_prefixed_samples
from .....expression.readers.single_section import read_single_section
from .....expression.tables.spot_files import list_table_libraries
from .loaded_section import SectionCandidate

if TYPE_CHECKING:
    from anndata import AnnData


_TABLE_SUFFIXES = (".tsv.gz", ".tsv", ".csv.gz", ".csv", ".parquet")
_SELECTION_SUFFIX = "_selection"
_IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".tif",
    ".tiff",
    ".svs",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
)
_POSITION_WORDS = ("selection", "positions", "spots", "coords")  # of the name of a spot file


def find_candidates(
    paths: Sequence[Path], image: Path | None = None
) -> tuple[SectionCandidate, ...]:
    """Find the sections in a folder or a file, or the one section in several files.

    Parameters
    ----------
    paths
        A folder or a file; several files are the counts, the spots and perhaps the image of one
        section.
    image
        Slide of the sections; default: the one that the files name.

    Raises
    ------
    SpotsError
        There is no section.
    """
    if not paths:
        raise SpotsError("Choose a folder or a file with measured spots.")
    if len(paths) > 1:
        if (several := _candidates_of_h5ad(paths, image)) is not None:
            return several
        return _candidates_from_files(paths, image)
    path = paths[0].expanduser()
    if not path.exists():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.is_dir() or path.suffix == ".h5ad":
        return _candidates_in_folder(path, image)
    if path.suffix in (".h5", ".hdf5") or path.name.endswith(("matrix.mtx", "matrix.mtx.gz")):
        prefixed = {s.counts: s.name for s in find_prefixed_samples(path.parent)}
        if path in prefixed:
            found = _candidates_in_folder(path.parent, image)
            return tuple(candidate for candidate in found if candidate.name == prefixed[path])
        if (path.parent / "spatial").is_dir():
            return _candidates_in_folder(path.parent, image)
        raise SpotsError(
            f"{path.name} does not say where its spots are; load the whole Space Ranger folder, "
            "with spatial in it."
        )
    return (_candidate_from_table(path, image),)


def _candidates_of_h5ad(
    paths: Sequence[Path], image: Path | None
) -> tuple[SectionCandidate, ...] | None:
    """Find the sections of an h5ad that was chosen with an image; None unless it has several."""
    images = [p for p in paths if p.name.lower().endswith(_IMAGE_SUFFIXES)]
    others = [p for p in paths if p not in images]
    if len(others) != 1 or others[0].suffix != ".h5ad" or len(list_file_libraries(others[0])) < 2:
        return None
    return _candidates_in_folder(others[0], image or (images[0] if images else None))


def her2st_image(root: Path, name: str) -> Path | None:
    """Find the image of a her2st section by the layout of its folder."""
    try:
        return find_her2st_files(root, name)[0]
    except SpotsError:
        return None  # reading the section reports what is missing


def _candidates_in_folder(root: Path, image: Path | None) -> tuple[SectionCandidate, ...]:
    def read(read_section: Callable[[], AnnData]) -> AnnData:
        data = read_section()
        if image is not None:
            data.uns["image"] = str(image)
        return data

    return tuple(
        SectionCandidate(
            f.name,
            root,
            partial(read, f.read),
            image or (her2st_image(root, f.name) if f.layout == "her2st" else None),
        )
        for f in find_sections(root)
    )


def _candidate_from_table(path: Path, image: Path | None) -> SectionCandidate:
    """Make a candidate of a her2st table of counts or spots; the other table is next to it."""
    name = _section_name(path)
    if name.endswith(_SELECTION_SUFFIX):
        name = name.removesuffix(_SELECTION_SUFFIX)
        counts = _find_table(name, (path.parent, path.parent.parent / "ST-cnts"))
        if counts is None:
            raise SpotsError(
                f"There are no counts {name}.tsv.gz for {path.name}; put them beside it."
            )
        spots = path
    else:
        counts = path
        folders = (path.parent, path.parent.parent / "ST-spotfiles")
        found = _find_table(name + _SELECTION_SUFFIX, folders)
        if found is None:
            raise SpotsError(
                f"{path.name} does not say where its spots are; put a file "
                f"{name}{_SELECTION_SUFFIX}.tsv beside it, or load counts and spots together."
            )
        spots = found
    root = counts.parent.parent
    if counts.parent.name == "ST-cnts" and find_her2st_root(root) == root:
        image = image or her2st_image(root, name)
    image = image or find_image_by_stem(counts.parent, name)
    return _make_candidate(name, counts, spots, image)


def _make_candidate(
    name: str, counts: Path, spots: Path | None, image: Path | None, library: str | None = None
) -> SectionCandidate:
    def read(mpp: float | None = None) -> AnnData:
        return read_single_section(image, counts, spots, library, mpp)

    return SectionCandidate(name, counts, read, image, read)


def _candidates_from_files(
    paths: Sequence[Path], image: Path | None
) -> tuple[SectionCandidate, ...]:
    """Make candidates of counts, spots and perhaps an image that were chosen together.

    They are one section, or those that the spots name.
    """
    images = [p for p in paths if p.name.lower().endswith(_IMAGE_SUFFIXES)]
    tables = [p for p in paths if p not in images]
    positions = [p for p in tables if any(word in p.name.lower() for word in _POSITION_WORDS)]
    counts = [p for p in tables if p not in positions]
    if len(counts) != 1 or len(positions) > 1 or len(images) > 1:
        names = ", ".join(p.name for p in paths[:4])
        raise SpotsError(
            f"{names} are not one file with counts and one with spots (called *_selection, "
            "*_positions or *_spots); choose these two."
        )
    image = image or (images[0] if images else None)
    spots = positions[0] if positions else None
    name, libraries = _section_name(counts[0]), _list_libraries(spots)
    if len(libraries) < 2:
        return (_make_candidate(name, counts[0], spots, image),)
    return tuple(
        _make_candidate(f"{name} {library}", counts[0], spots, image, library)
        for library in libraries
    )


def _list_libraries(spots: Path | None) -> tuple[str, ...]:
    if spots is None:
        return ()
    list_of_file = list_file_libraries if spots.suffix == ".h5ad" else list_table_libraries
    return tuple(list_of_file(spots))


def _section_name(path: Path) -> str:
    ending = next((e for e in _TABLE_SUFFIXES if path.name.lower().endswith(e)), path.suffix)
    return path.name[: len(path.name) - len(ending)] if ending else path.name


def _find_table(name: str, folders: Sequence[Path]) -> Path | None:
    files = [folder / f"{name}{ending}" for folder in folders for ending in _TABLE_SUFFIXES]
    return next((f for f in files if f.is_file()), None)
