"""Read sections from outputs of Space Ranger 1 to 4: Visium, and Visium HD's binned outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from .count_files import read_counts
from .image_files import find_only_image, is_image_of_section, list_images
from .metadata import read_scale_factors
from .section_anndata import SectionEntry, SectionMetadata, build_section
from .spot_files import read_spots

if TYPE_CHECKING:
    from anndata import AnnData


_COUNT_NAMES = ("filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix")
_POSITION_NAMES = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
# Space Ranger recommends 8 um bins to start with; other bins are read by their folder.
_BIN_FOLDERS = ("square_008um", "square_016um")


def find_space_ranger_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the section of a Space Ranger folder, or those of its subfolders.

    The results may be in ``outs`` of the folder. Of Visium HD the 8 um bins are used; for others
    give the folder of the bins, for example ``binned_outputs/square_016um``.
    """
    folders = (
        [root] if find_output_folder(root) else sorted(p for p in root.iterdir() if p.is_dir())
    )
    return tuple(
        SectionEntry(
            _section_name(f),
            "",
            "Space Ranger",
            partial(read_space_ranger_section, f, _section_name(f)),
        )
        for f in folders
        if find_output_folder(f)
    )


def find_output_folder(folder: Path) -> Path | None:
    """Return the folder with the counts, None if it is not a Space Ranger folder."""
    folders = [base for base in (folder, folder / "outs") if base.is_dir()]
    bin_folders = [base / "binned_outputs" / bins for base in folders for bins in _BIN_FOLDERS]
    for candidate in [*bin_folders, *folders]:
        if any((candidate / name).exists() for name in _COUNT_NAMES):
            return candidate
    return None


def read_space_ranger_section(
    folder: str | Path, name: str = "", image: str | Path | None = None
) -> AnnData:
    """Read the spots in tissue of a section; see `build_section` for the result.

    The image is `image`, or the one in the folder or in its parent (the images in ``spatial`` are
    downsampled and not used). The pixel size is that of the scale factors (Visium HD), else that
    of the array.

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
    counts = next(p for n in _COUNT_NAMES if (p := output / n).exists())
    spatial = output / "spatial"
    positions = next((p for n in _POSITION_NAMES if (p := spatial / n).is_file()), None)
    if positions is None:
        raise SpotsError(f"{spatial} has no tissue_positions.csv; copy the whole spatial folder.")
    image_path = str(image) if image is not None else _find_sample_image(folder, output.resolve())
    image_note = f"no full-resolution image lies beside {folder}"
    metadata = SectionMetadata(
        name,
        image=image_path,
        mpp=read_scale_factors(spatial).mpp,
        mpp_origin="Space Ranger's scale factors",
        notes={} if image_path else {"image_note": image_note},
    )
    return build_section(read_counts(counts), read_spots(positions), metadata, positions)


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
