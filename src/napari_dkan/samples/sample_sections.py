"""Sample sections: a HER2+ breast section (Andersson et al. 2021, CC-BY-4.0) and a synthetic one.

The real section comes from the folder in NAPARI_DKAN_DATA or is downloaded once from the study's
repository at a pinned commit; each file is checked against its SHA-256.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DkanError, OutputError
from ..file_hash import compute_sha256
from .synthetic_section import SAMPLE_SEED, SIMULATION_NOTICE, SyntheticSection, draw_section

DRAWING_VERSION = (
    5  # raise it when make_section draws something else, so that old copies are not used
)
TILE_PX = 512


@dataclass(frozen=True)
class SamplePaths:
    """The files of one section: root holds them in the her2st layout under this name."""

    root: Path
    name: str
    image: Path
    counts: Path
    spots: Path
    title: str = ""


def her2st_paths(root: Path, name: str, image: str, title: str = "") -> SamplePaths:
    """Where the her2st layout has a section's files."""
    return SamplePaths(
        root=root,
        name=name,
        image=root / "ST-imgs" / name[:1] / name / image,
        counts=root / "ST-cnts" / f"{name}.tsv.gz",
        spots=root / "ST-spotfiles" / f"{name}_selection.tsv",
        title=title,
    )


def sample_cache_folder() -> Path:
    """Where samples are kept between sessions."""
    import platformdirs

    return platformdirs.user_cache_path("napari-dkan") / "samples"


def get_synthetic_section(
    seed: int = SAMPLE_SEED, size_px: int = 4608, folder: Path | None = None
) -> SamplePaths:
    """The files of a synthetic section, drawn on the first call and kept.

    folder : where to keep it, the user's cache by default. Every size has a folder of its own;
    copies by an older version of the drawing are removed.

    Raises OutputError when it cannot be written.
    """
    root = (folder or sample_cache_folder()) / f"synthetic-v{DRAWING_VERSION}-{seed}-{size_px}px"
    paths = _synthetic_paths(root, f"X{seed}")
    if not all(p.is_file() for p in (paths.image, paths.counts, paths.spots)):
        for old in root.parent.glob(f"synthetic-v*-{seed}-{size_px}px"):
            shutil.rmtree(old, ignore_errors=True)
        write_her2st_section(draw_section(seed, size_px), root, paths.name)
    return paths


def write_her2st_section(section: SyntheticSection, folder: str | Path, name: str) -> SamplePaths:
    """Write a section to a new folder, all of it or nothing.

    The image is a tiled pyramidal OME-TIFF (JPEG, PhysicalSize in um); counts and spots are
    tab-separated tables as the her2st study has them. ``README.txt`` says that it is simulated.

    Raises OutputError when the folder exists and holds something, or cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; name a new folder for the synthetic section.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            made = Path(work) / "section"
            paths = _synthetic_paths(made, name)
            for path in (paths.image, paths.counts, paths.spots):
                path.parent.mkdir(parents=True)
            _write_image(section, paths.image)
            _write_tables(section, paths)
            (made / "README.txt").write_text(
                f"{SIMULATION_NOTICE} Seed {section.seed}.\n", encoding="utf-8"
            )
            if folder.is_dir():
                folder.rmdir()
            os.replace(made, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder} could not be written ({reason}); choose another folder or free some space."
        ) from error
    return _synthetic_paths(folder, name)


def _synthetic_paths(root: Path, name: str) -> SamplePaths:
    if not name or not name.isalnum():
        raise DkanError(f"{name!r} cannot name a section; use letters and digits.")
    title = f"Synthetic H&E {name} (expression simulated)"
    return her2st_paths(root, name, f"{name}_synthetic.ome.tif", title)


def _write_image(section: SyntheticSection, path: Path) -> None:
    import tifffile

    levels = [section.image]
    while min(levels[-1].shape[:2]) > 2 * TILE_PX:
        levels.append(_downsample_by_two(levels[-1]))
    jpeg = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 88},
    }
    about = {
        "axes": "YXS",
        "Name": path.name.split(".")[0],
        "Description": f"{SIMULATION_NOTICE} Seed {section.seed}.",
        "PhysicalSizeX": section.mpp,
        "PhysicalSizeY": section.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, bigtiff=False, ome=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, metadata=about, **jpeg)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, metadata=None, **jpeg)


def _downsample_by_two(image: np.ndarray) -> np.ndarray:
    h, w = (n // 2 * 2 for n in image.shape[:2])
    total = np.full((h // 2, w // 2, 3), 2, np.uint16)  # 2 of 4, to round
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        total += image[row:h:2, column:w:2]
    return (total >> 2).astype(np.uint8)


def _write_tables(section: SyntheticSection, paths: SamplePaths) -> None:
    spots = section.spots
    assert spots.array is not None
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    for (x, y), (px, py) in zip(spots.array, spots.xy, strict=True):
        lines.append(f"{x}\t{y}\t{x:.3f}\t{y:.3f}\t{px:.2f}\t{py:.2f}\t1")
    paths.spots.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["\t" + "\t".join(section.symbols)]
    for spot, counts in zip(spots.names, section.counts, strict=True):
        rows.append(spot + "\t" + "\t".join(map(str, counts)))
    text = ("\n".join(rows) + "\n").encode()
    # No time stamp, so that the same section gives the same bytes.
    paths.counts.write_bytes(gzip.compress(text, mtime=0))


HER2ST_COMMIT = "85df7411b987a7dec3feff9718b869a7a82091ec"
HER2ST_URL = f"https://raw.githubusercontent.com/almaan/her2st/{HER2ST_COMMIT}/data"
HER2ST_CITATION = "Andersson et al. 2021, doi:10.1038/s41467-021-26271-2, CC-BY-4.0"
DOWNLOAD_TIMEOUT_S = (5, 30)  # to connect, and between two pieces of a file

HER2ST_SHA256 = {
    "C3": {
        "ST-imgs/C/C3/5714_HE_BT_D1.jpg": (
            "0005a92674014d473040a28f0afca89ce5fa5c44019b479b638ceb3272ceb568"
        ),
        "ST-cnts/C3.tsv.gz": "e00c55a3eb9caac5d9c71b8906aae8be8b38f93e23938f4a0ebee17683ef6a2a",
        "ST-spotfiles/C3_selection.tsv": (
            "7fd76c13370b7804ac3bb377b846d22485cf9223f9dd8dfc25be06e5aaf65755"
        ),
    },
}


def fetch_her2st_section(section: str = "C3") -> SamplePaths:
    """Image, counts and spot file of a section, in a folder with the her2st layout.

    Raises DkanError when the section is not offered, a file of NAPARI_DKAN_DATA is not the
    study's, or a download fails; nothing half-made stays behind.
    """
    if section not in HER2ST_SHA256:
        raise DkanError(f"There is no sample section {section}; choose {', '.join(HER2ST_SHA256)}.")
    files = HER2ST_SHA256[section]
    image = next(name.rsplit("/", 1)[1] for name in files if name.startswith("ST-imgs/"))
    title = f"HER2+ breast, section {section}"
    local = _find_local_root(files)
    if local is not None:
        for name, digest in files.items():
            if _hash_file(local / name) != digest:
                raise DkanError(
                    f"{local / name} is not the study's file (its SHA-256 differs); replace it, "
                    "or unset NAPARI_DKAN_DATA to download it."
                )
        return her2st_paths(local, section, image, title)
    root = sample_cache_folder() / "her2st"
    for name, digest in files.items():
        _download(f"{HER2ST_URL}/{name}", digest, root / name)
    return her2st_paths(root, section, image, title)


def is_her2st_section_local(section: str = "C3") -> bool:
    """True when fetch_section would find all files on this machine, without a download."""
    files = HER2ST_SHA256.get(section, {})
    root = _find_local_root(files) or sample_cache_folder() / "her2st"
    return bool(files) and all((root / name).is_file() for name in files)


def _find_local_root(files: dict[str, str]) -> Path | None:
    """The her2st folder of NAPARI_DKAN_DATA, if it is set and holds all of these files."""
    given = os.environ.get("NAPARI_DKAN_DATA", "")
    if not given:
        return None
    for root in (Path(given) / "her2st", Path(given)):
        if all((root / name).is_file() for name in files):
            return root
    return None


def _download(url: str, digest: str, path: Path) -> None:
    import pooch

    quiet = pooch.get_logger()
    level = quiet.level
    quiet.setLevel("WARNING")
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{digest}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT_S),
        )
    except (OSError, ValueError) as error:
        # A refused connection and a full disk are OSErrors, a wrong hash is a ValueError.
        raise DkanError(
            f"{path.name} could not be fetched from the study's repository ({_summarize_error(error)}); "
            "set NAPARI_DKAN_DATA to a folder that holds her2st, or open the synthetic section, "
            "which needs no network."
        ) from error
    finally:
        quiet.setLevel(level)


def _summarize_error(error: Exception) -> str:
    """A few words for the kind of failure; requests' own messages run over several lines."""
    text = str(error)
    if isinstance(error, ValueError) and "hash" in text:
        return "its content is not the expected one"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    kind = type(error).__name__
    return {
        "ConnectionError": "no network",
        "ConnectTimeout": "no answer",
        "ReadTimeout": "no answer",
        "HTTPError": text.splitlines()[0][:80] if text else "refused",
    }.get(kind, kind)


def _hash_file(path: Path) -> str:
    try:
        return compute_sha256(path)
    except OSError as error:
        raise DkanError(f"{path} cannot be read ({error.strerror}); check it.") from error
