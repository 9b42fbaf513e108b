"""Sample sections: a HER2+ breast section and a synthetic one.

The real section (Andersson et al. 2021, doi:10.1038/s41467-021-26271-2, CC-BY-4.0) comes from the
folder in NAPARI_DKAN_DATA or is downloaded once from the study's repository at a pinned commit;
each file is checked against its SHA-256. The synthetic section is part of the package;
``tools/synthetic_section`` draws it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import DkanError
from ..file_hash import compute_sha256

SYNTHETIC_FOLDER = Path(__file__).resolve().parent / "synthetic"
SYNTHETIC_NAME = "X7"


@dataclass(frozen=True)
class SamplePaths:
    """The files of one section.

    Attributes
    ----------
    root : Path
        Folder in the her2st layout that holds the section under `name`.
    title : str
        Title of its layer; the name where empty.
    """

    root: Path
    name: str
    image: Path
    counts: Path
    spots: Path
    title: str = ""


def her2st_paths(root: Path, name: str, image: str, title: str = "") -> SamplePaths:
    """Return where the her2st layout has the files of a section."""
    return SamplePaths(
        root=root,
        name=name,
        image=root / "ST-imgs" / name[:1] / name / image,
        counts=root / "ST-cnts" / f"{name}.tsv.gz",
        spots=root / "ST-spotfiles" / f"{name}_selection.tsv",
        title=title,
    )


def synthetic_section_paths(root: Path, name: str) -> SamplePaths:
    """Return where a folder has the files of a synthetic section."""
    title = f"Synthetic H&E {name} (expression simulated)"
    return her2st_paths(root, name, f"{name}_synthetic.ome.tif", title)


def get_synthetic_section() -> SamplePaths:
    """Return the files of the synthetic section that is part of the package."""
    return synthetic_section_paths(SYNTHETIC_FOLDER, SYNTHETIC_NAME)


def sample_cache_folder() -> Path:
    """Return the folder that keeps downloaded samples."""
    import platformdirs

    return platformdirs.user_cache_path("napari-dkan") / "samples"


HER2ST_COMMIT = "85df7411b987a7dec3feff9718b869a7a82091ec"
HER2ST_URL = f"https://raw.githubusercontent.com/almaan/her2st/{HER2ST_COMMIT}/data"
DOWNLOAD_TIMEOUT_S = (5, 30)  # to connect, and to read

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
    """Return the files of a section of the her2st study, downloaded where necessary.

    Raises
    ------
    DkanError
        If the section is not offered, a file of NAPARI_DKAN_DATA is not that of the study, or a
        download fails; incomplete files are removed.
    """
    if section not in HER2ST_SHA256:
        raise DkanError(f"There is no sample section {section}; choose {', '.join(HER2ST_SHA256)}.")
    files = HER2ST_SHA256[section]
    image = next(name.rsplit("/", 1)[1] for name in files if name.startswith("ST-imgs/"))
    title = f"HER2+ breast, section {section}"
    local = _find_local_root(files)
    if local is not None:
        for name, digest in files.items():
            if _compute_file_sha256(local / name) != digest:
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
    """Return whether `fetch_her2st_section` needs no download."""
    files = HER2ST_SHA256.get(section, {})
    root = _find_local_root(files) or sample_cache_folder() / "her2st"
    return bool(files) and all((root / name).is_file() for name in files)


def _find_local_root(files: dict[str, str]) -> Path | None:
    """The her2st folder of NAPARI_DKAN_DATA, if it is set and has all of these files."""
    folder = os.environ.get("NAPARI_DKAN_DATA", "")
    if not folder:
        return None
    for root in (Path(folder) / "her2st", Path(folder)):
        if all((root / name).is_file() for name in files):
            return root
    return None


def _download(url: str, digest: str, path: Path) -> None:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
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
            f"{path.name} could not be fetched from the study's repository "
            f"({_summarize_error(error)}); set NAPARI_DKAN_DATA to a folder that holds her2st, or "
            "open the synthetic section, which needs no network."
        ) from error
    finally:
        logger.setLevel(level)


def _summarize_error(error: Exception) -> str:
    """Describe a failure in a few words; the messages of requests have several lines."""
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


def _compute_file_sha256(path: Path) -> str:
    try:
        return compute_sha256(path)
    except OSError as error:
        raise DkanError(f"{path} cannot be read ({error.strerror}); check it.") from error
