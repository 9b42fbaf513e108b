"""Options shared by several commands, and their parsing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..batch.slide_job import split_names
from ..errors import SpotsError
from ..spatial.object_types import RegionObjects
from ..training.train_settings import StainMethod

BUNDLED_CHECKPOINT = "bundled"  # stands for the checkpoint of this package
DEFAULT_CHECKPOINT_NAME = "her2-breast"

DataOption = Annotated[
    Path,
    typer.Option(
        help="Folder with the sections: her2st, Space Ranger, HEST-1k, h5ad, SpatialData, or the "
        "layout published with DKAN.",
        show_default=False,
    ),
]
SectionsOption = Annotated[
    str | None, typer.Option(help="Such as C2,C3,C4,C5; default all there are.")
]
PanelOption = Annotated[
    Path | None,
    typer.Option(
        help="Text file with one gene symbol per line, or .npy; default the data's own.",
        show_default=False,
    ),
]
GeneTextOption = Annotated[
    Path | None,
    typer.Option(help="Gene file of `genes build`, or .npz with genes and features."),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(help="Frozen tile encoder (uni, any timm model); default stain statistics."),
]
EncoderWeightsOption = Annotated[
    Path | None, typer.Option(help="Local weights of the tile encoder.")
]
StainOption = Annotated[
    StainMethod | None,
    typer.Option("--stain", help="Normalise every slide to the training sections' stain."),
]
DevicesOption = Annotated[int, typer.Option(min=1, help="GPUs (or CPU processes) to train on.")]
RunFolderOption = Annotated[
    Path | None, typer.Option(help="Folder that keeps the run.", show_default="beside the output")
]
SettingChangesOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Another setting, as name=value; may be given several times."),
]
ResumeOption = Annotated[bool, typer.Option(help="Go on with the run that the folder holds.")]
ReportOption = Annotated[
    Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
]
COUNTS_OPTION = typer.Option(help="Raw counts: .tsv(.gz), .h5ad, 10x .h5, .parquet.")
SlideMppOption = Annotated[float | None, typer.Option(help="Micrometres per pixel of the slide.")]
ImageNameOption = Annotated[
    str | None,
    typer.Option(help="Name or number of the image in the file; default the scan."),
]
WholeGlassOption = Annotated[
    bool,
    typer.Option(
        "--whole-glass", help="Count positions from the glass, not from the scan area as QuPath."
    ),
]
SectionImageNameOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]IMAGE",
        help="Name or number of the image in the files, or in that of one section; default the "
        "scan; may be given several times.",
    ),
]
SectionMppOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]UM",
        help="Micrometres per pixel of the slides, or of one section; may be given several times.",
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps, cpu; default best.")]
RegionObjectsOption = Annotated[
    RegionObjects | None,
    typer.Option(help="What a GeoJSON's regions are; default annotations, if there are any."),
]
FewGenesOption = Annotated[
    bool, typer.Option("--few-genes", help="Use a few genes that agree, as of a mouse section.")
]
CheckpointOption = Annotated[
    str, typer.Option(help="A file, or bundled for the one of this package.")
]
LibraryOption = Annotated[str | None, typer.Option(help="The section, where a file holds several.")]


def echo_log(line: str) -> None:
    """Print a line of the log to stderr."""
    typer.echo(line, err=True)


def resolve_checkpoint(name_or_path: str | Path) -> Path:
    """Return the path of a checkpoint, or of that of this package for the word ``bundled``."""
    from ..samples.bundled_checkpoints import find_bundled_checkpoint

    if str(name_or_path) == BUNDLED_CHECKPOINT:
        return find_bundled_checkpoint(DEFAULT_CHECKPOINT_NAME)
    return Path(name_or_path)


def job_checkpoint(path: Path | None) -> Path | None:
    """Return a job's checkpoint: absolute, or None for that of this package.

    A worker on another machine resolves None to the path of its own installation.
    """
    return None if path is None or str(path) == BUNDLED_CHECKPOINT else path.absolute()


def checkpoint_word(name_or_path: str) -> str | Path:
    """Return a checkpoint option as `format_command_line` records it."""
    return name_or_path if name_or_path == BUNDLED_CHECKPOINT else Path(name_or_path)


def parse_section_names(sections: str | None) -> list[str] | None:
    """Parse ``C2,C3`` into names, None for all; raises SpotsError for none or a repeated one."""
    if sections is None:
        return None
    names = list(split_names(sections) or ())
    if not names:
        raise SpotsError("--sections names no section; give some, such as C2,C3,C4,C5.")
    if len(set(names)) != len(names):
        raise SpotsError("--sections names a section twice; give each once.")
    return names


def format_command_line(name: str, **options: object) -> str:
    """Format a command for a report; of each path only the last part, as reports are shared."""
    words = []
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [f"{flag} {item}" for item in value]
        elif value is not None and value is not False:
            words.append(f"{flag} {value.resolve().name if isinstance(value, Path) else value}")
    return " ".join(["napari-dkan", name, *words])
