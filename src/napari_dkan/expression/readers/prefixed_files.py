"""Find the files of 10x samples whose names begin with that of the sample, as in GEO archives.

``GSM123_A1_filtered_feature_bc_matrix.h5`` (or ``..._matrix.mtx.gz`` with its two lists) belongs
with ``GSM123_A1_tissue_positions_list.csv.gz`` and ``GSM123_A1_scalefactors_json.json.gz``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import SpotsError
from .image_files import is_image_of_section, list_images

COUNT_NAMES = (
    "filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices_h5.h5",
    "filtered_gene_bc_matrices",  # of Cell Ranger 2, with a folder of the genome in it
)
_COUNT_FOLDERS = (COUNT_NAMES[1], COUNT_NAMES[3])
POSITION_NAMES = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.csv.gz",
    "tissue_positions_list.csv.gz",
)
_MTX_NAMES = ("matrix.mtx.gz", "matrix.mtx")
_COUNTS = re.compile(
    "(?P<prefix>.*?)(?:" + "|".join(map(re.escape, (*COUNT_NAMES, *_MTX_NAMES))) + ")"
)


@dataclass(frozen=True)
class PrefixedSample:
    """The files of one sample.

    Attributes
    ----------
    name
        What their names begin with.
    prefix
        The same with what follows it: ``GSM123_A1_``.
    counts, positions
        The two files.
    is_alone
        Whether the folder holds no other sample.
    """

    name: str
    prefix: str
    counts: Path
    positions: Path
    is_alone: bool

    def find_image(self) -> str:
        """Find the full-resolution image, "" when there is none.

        Raises SpotsError if several images may belong to the sample.
        """
        folder = self.counts.parent
        images = list_images(folder)
        named = [
            p for p in images if p.name.startswith(self.prefix) or is_image_of_section(p, self.name)
        ]
        if not named and self.is_alone:
            named = images
        if len(named) > 1:
            raise SpotsError(
                f"{folder} holds {len(named)} images of {self.name} "
                f"({', '.join(p.name for p in named[:3])}); move the others away."
            )
        return str(named[0]) if named else ""


def find_prefixed_samples(folder: Path) -> list[PrefixedSample]:
    """Find the samples with counts and positions in a folder (or its ``spatial``)."""
    counts = _find_counts(folder)
    is_alone = len(counts) == 1
    samples = []
    for prefix, path in sorted(counts.items()):
        positions = _find_positions(folder, prefix, is_alone)
        if positions is not None:
            name = prefix.rstrip("_-. ") or folder.resolve().name
            samples.append(PrefixedSample(name, prefix, path, positions, is_alone))
    return samples


def find_positions(spatial: Path, prefix: str = "") -> Path | None:
    """Find the file with the positions of a folder, by the prefix of its name."""
    return next((p for n in POSITION_NAMES if (p := spatial / f"{prefix}{n}").is_file()), None)


def find_only_positions(spatial: Path, sample: str = "") -> Path | None:
    """Find the file with positions of a folder of one sample.

    Parameters
    ----------
    sample
        Prefix of its counts. A longer or shorter one belongs to it (``A1_``, ``GSM123_A1_``),
        another one to another sample. Any belongs to "".
    """
    if (plain := find_positions(spatial)) is not None:
        return plain
    prefixed = [
        path
        for name in POSITION_NAMES
        for path in spatial.glob(f"*[-_. ]{name}")
        if (prefix := path.name.removesuffix(name)) in sample or sample in prefix
    ]
    return prefixed[0] if len(prefixed) == 1 else None


def _find_counts(folder: Path) -> dict[str, Path]:
    """Find the counts of each prefix; of several the first of `COUNT_NAMES`."""
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _COUNTS.fullmatch(path.name)
        if match is None or path.name.startswith("."):
            continue
        prefix = match["prefix"]
        kind = path.name[len(prefix) :]
        if (prefix and prefix[-1] not in "_-. ") or path.is_dir() != (kind in _COUNT_FOLDERS):
            continue
        rank = (*COUNT_NAMES, *_MTX_NAMES).index(kind)
        if prefix not in found or rank < found[prefix][0]:
            found[prefix] = (rank, path)
    return {prefix: path for prefix, (_, path) in found.items()}


def _find_positions(folder: Path, prefix: str, is_alone: bool) -> Path | None:
    """Find the positions of a sample; files without its prefix are those of a sample alone."""
    name = prefix.rstrip("_-. ")
    shared = [folder, folder / "spatial"]
    of_sample = [folder / f"{prefix}spatial", folder / f"{prefix}spatial" / "spatial"]
    if name:
        of_sample += [folder / name, folder / name / "spatial"]
    by_prefix = [find_positions(place, prefix) for place in (*shared, *of_sample)]
    places = [*of_sample, *(shared if is_alone else ())]
    others = [find_only_positions(place, prefix) for place in places]
    return next((path for path in (*by_prefix, *others) if path is not None), None)
