"""Sections in output folders of Space Ranger 1 to 4: Visium and Visium HD's binned outputs."""

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
# 8 um is what Space Ranger itself recommends to start from; other bins are read by their folder.
_BIN_FOLDERS = ("square_008um", "square_016um")


def find_space_ranger_sections(root: Path) -> tuple[SectionEntry, ...]:
    """The folder itself, or those of its subfolders that are Space Ranger outputs.

    A folder with ``outs`` counts as its ``outs``. Of Visium HD's bins the 8 um ones are taken;
    for others give the bin's own folder, e.g. ``binned_outputs/square_016um``.
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
    """Where the counts of a folder lie, None when it is no Space Ranger folder."""
    places = [base for base in (folder, folder / "outs") if base.is_dir()]
    inside = [p / "binned_outputs" / b for p in places for b in _BIN_FOLDERS]
    for place in [*inside, *places]:
        if any((place / name).exists() for name in _COUNT_NAMES):
            return place
    return None


def read_space_ranger_section(
    folder: str | Path, name: str = "", image: str | Path | None = None
) -> AnnData:
    """A section; see `section.build_section` for what it holds.

    Only spots in tissue. The image is `image`, or the one that lies in the folder or the one
    above it (the pictures in ``spatial`` are reduced, so they do not count). The pixel size is
    that of the scale factors (Visium HD), else that of the array.

    Raises SpotsError naming the file that is missing or damaged.
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
    found = str(image) if image is not None else _find_sample_image(folder, output.resolve())
    about = SectionMetadata(
        name,
        image=found,
        mpp=read_scale_factors(spatial).mpp,
        mpp_origin="Space Ranger's scale factors",
        notes={} if found else {"image_note": f"no full-resolution image lies beside {folder}"},
    )
    return build_section(read_counts(counts), read_spots(positions), about, positions)


def _sample_folder(folder: Path) -> tuple[Path, str]:
    """The sample's own folder, and the bin where the folder is that of one."""
    folder, bins = folder.resolve(), ""
    if folder.parent.name == "binned_outputs":
        folder, bins = folder.parent.parent, folder.name
    return (folder.parent if folder.name == "outs" else folder), bins


def _section_name(folder: Path) -> str:
    sample, bins = _sample_folder(folder)
    return f"{sample.name} {bins}" if bins else sample.name


def _find_sample_image(folder: Path, output: Path) -> str:
    """The image in the sample's folder or, if that cannot be another sample's, above it."""
    sample = _sample_folder(folder)[0]
    places = [p for p in (output, *output.parents) if p == sample or sample in p.parents]
    above = sample.parent
    images = [image for p in places if (image := find_only_image(p, sample.name)) is not None]
    images += [p for p in list_images(above) if is_image_of_section(p, sample.name)]
    if (
        not images
        and sum(find_output_folder(p) is not None for p in above.iterdir() if p.is_dir()) == 1
    ):
        images += list_images(above) if len(list_images(above)) == 1 else []
    return str(images[0]) if images else ""
