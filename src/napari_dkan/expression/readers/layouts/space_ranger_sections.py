"""Read sections from outputs of Space Ranger 1 to 4: Visium, and Visium HD's binned outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import SpotsError
from ...tables.count_files import read_counts
from ...tables.spot_files import read_spots
from ..image_files import (
    find_only_image,
    is_image_of_section,
    list_images,
    list_low_resolution_images,
)
from ..metadata import read_scale_factors_beside
from ..prefixed_files import COUNT_NAMES, PrefixedSample, find_only_positions, find_prefixed_samples
from ..read_account import ReadAccount
from ..section_anndata import SectionEntry, SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


_LAYOUT = "Space Ranger"
# Space Ranger recommends 8 um bins to start with; other bins are read by their folder.
_BIN_FOLDERS = ("square_008um", "square_016um")


_SEGMENTED_FOLDER = "segmented_outputs"  # of Space Ranger 4
_SEGMENTED_COUNTS = "filtered_feature_cell_matrix.h5"


def find_space_ranger_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the section of a Space Ranger folder, or those of its subfolders and of its files.

    The results may be in ``outs`` of the folder. Of Visium HD the 8 um bins are used; for others
    give the folder of the bins, for example ``binned_outputs/square_016um``. Files of several
    samples may lie side by side, each with the name of its sample before it.
    """
    if find_output_folder(root):
        return (_folder_entry(root),)
    if not root.is_dir():
        return ()
    entries = [_sample_entry(sample) for sample in find_prefixed_samples(root)]
    taken = {entry.name for entry in entries}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        found = (
            [_folder_entry(folder)]
            if find_output_folder(folder)
            else [_sample_entry(sample) for sample in find_prefixed_samples(folder)]
        )
        entries += [entry for entry in found if entry.name not in taken]
        taken |= {entry.name for entry in found}
    return tuple(entries)


def refuse_other_space_ranger_outputs(root: Path) -> None:
    """Raise SpotsError for a folder with results of Space Ranger of a kind that is not read."""
    if not root.is_dir():
        return
    folders = [root, root / "outs", *sorted(p for p in root.iterdir() if p.is_dir())]
    folders += [p / "outs" for p in folders[2:]]
    for folder in folders:
        if (folder / _SEGMENTED_COUNTS).is_file() or (folder / _SEGMENTED_FOLDER).is_dir():
            raise SpotsError(
                f"{folder} holds segmented cells only ({_SEGMENTED_FOLDER}), and this reads square "
                "bins; copy binned_outputs/square_008um of the same run there."
            )


def _folder_entry(folder: Path) -> SectionEntry:
    name = _section_name(folder)
    return SectionEntry(name, "", _LAYOUT, partial(read_space_ranger_section, folder, name))


def _sample_entry(sample: PrefixedSample) -> SectionEntry:
    return SectionEntry(sample.name, "", _LAYOUT, partial(read_prefixed_sample, sample))


def read_prefixed_sample(
    sample: PrefixedSample, image: str | Path | None = None, library: str | None = None
) -> AnnData:
    """Read a sample whose files begin with its name; see `read_space_ranger_section`."""
    folder, skipped = sample.counts.parent, list_low_resolution_images(sample.counts.parent)
    return _read_files(
        sample.name,
        sample.counts,
        sample.positions,
        sample.find_image() if image is None else str(image),
        f"no full-resolution image of {sample.name} lies in {folder}{_describe_skipped(skipped)}",
        library,
    )


def find_output_folder(folder: Path) -> Path | None:
    """Return the folder with the counts, None if it is not a Space Ranger folder."""
    folders = [base for base in (folder, folder / "outs") if base.is_dir()]
    bin_folders = [base / "binned_outputs" / bins for base in folders for bins in _BIN_FOLDERS]
    for candidate in [*bin_folders, *folders]:
        if any((candidate / name).exists() for name in COUNT_NAMES):
            return candidate
    return None


def read_space_ranger_section(
    folder: str | Path,
    name: str = "",
    image: str | Path | None = None,
    library: str | None = None,
) -> AnnData:
    """Read the spots in tissue of a section; see `build_section` for the result.

    The image is `image`, or the one in the folder or in its parent (the images in ``spatial`` are
    downsampled and not used). The pixel size is that of the scale factors (Visium HD), else that
    of the array. Of several sections in it, `library` names the one to read.

    Raises
    ------
    SpotsError
        A file is missing or damaged.
    """
    folder = Path(folder)
    name = name or _section_name(folder)
    output = find_output_folder(folder)
    if output is None:
        raise SpotsError(f"{folder} has no filtered_feature_bc_matrix.h5; give the outs folder.")
    counts, positions = find_output_counts(output), _find_output_positions(output)
    image_path = str(image) if image is not None else _find_sample_image(folder, output.resolve())
    skipped = [p for place in {folder, output} for p in list_low_resolution_images(place)]
    note = f"no full-resolution image lies beside {folder}{_describe_skipped(skipped)}"
    return _read_files(name, counts, positions, image_path, note, library)


def find_output_counts(output: Path) -> Path:
    """Return the counts of a folder that `find_output_folder` found."""
    return next(p for n in COUNT_NAMES if (p := output / n).exists())


def _find_output_positions(output: Path) -> Path:
    """Find the positions in ``spatial``, beside the counts, or in the only ``*_spatial``.

    Raises SpotsError if there are none, or several such folders.
    """
    for folder in (output / "spatial", output):
        if (positions := find_only_positions(folder)) is not None:
            return positions
    prefixed = sorted(p for p in output.glob("*[-_. ]spatial") if p.is_dir())
    if len(prefixed) > 1:
        raise SpotsError(
            f"{output} has counts without a prefix and the folders "
            f"{', '.join(p.name for p in prefixed[:3])}; call the right one spatial."
        )
    positions = find_only_positions(prefixed[0]) if prefixed else None
    if positions is None:
        raise SpotsError(
            f"{output / 'spatial'} has no tissue_positions.csv, and none lies beside the counts; "
            "copy the whole spatial folder."
        )
    return positions


def _read_files(
    name: str,
    counts: Path,
    positions: Path,
    image: str,
    image_note: str,
    library: str | None = None,
) -> AnnData:
    among = list_images(Path(image).parent) if image else []
    metadata = SectionMetadata(
        name,
        image=image,
        mpp=read_scale_factors_beside(positions).mpp,
        mpp_origin="Space Ranger's scale factors",
        notes={} if image else {"image_note": image_note},
        account=ReadAccount(image_among=tuple(p.name for p in among)),
    )
    spots = read_spots(positions, library=library)
    return build_section(read_counts(counts), spots, metadata, positions)


def _describe_skipped(images: list[Path]) -> str:
    if not images:
        return ""
    names = ", ".join(sorted(p.name for p in images)[:3])
    return f"; {names} is named like a downsampled one, give it as the image if it is not"


def _sample_folder(folder: Path) -> tuple[Path, str]:
    """Return the folder of the sample, and the bins if the folder is one of bins."""
    folder, bins = folder.resolve(), ""
    if folder.parent.name == "binned_outputs":
        folder, bins = folder.parent.parent, folder.name
    return (folder.parent if folder.name == "outs" else folder), bins


def _section_name(folder: Path) -> str:
    sample, bins = _sample_folder(folder)
    return f"{sample.name} {bins}" if bins else sample.name


def _find_sample_image(folder: Path, output: Path) -> str:
    """Find the image in the folder of the sample, or in its parent if it belongs to no other."""
    sample = _sample_folder(folder)[0]
    folders = [p for p in (output, *output.parents) if p == sample or sample in p.parents]
    images = [image for p in folders if (image := find_only_image(p, sample.name)) is not None]
    parent_images = list_images(sample.parent)
    images += [p for p in parent_images if is_image_of_section(p, sample.name)]
    if not images and len(parent_images) == 1:
        siblings = (p for p in sample.parent.iterdir() if p.is_dir())
        if sum(find_output_folder(p) is not None for p in siblings) == 1:
            images = parent_images
    return str(images[0]) if images else ""
