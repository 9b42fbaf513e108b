"""Options shared by several commands, and their parsing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpotsError
from ..training.option_choices import StainMethod

DataOption = Annotated[
    Path,
    typer.Option(
        help="Folder with the sections: her2st, Space Ranger, HEST-1k, h5ad, SpatialData, or the "
        "layout published with DKAN.",
        show_default=False,
    ),
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
EncoderWeightsOption = Annotated[Path | None, typer.Option(help="Local weights of that encoder.")]
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


def parse_section_names(sections: str | None) -> list[str] | None:
    """``C2,C3`` -> its names, None for all. Raises SpotsError when none or one twice is named."""
    if sections is None:
        return None
    names = [name.strip() for name in sections.split(",") if name.strip()]
    if not names:
        raise SpotsError("--sections names no section; give some, such as C2,C3,C4,C5.")
    if len(set(names)) != len(names):
        raise SpotsError("--sections names a section twice; give each once.")
    return names


def format_command_line(name: str, **options: object) -> str:
    """What was asked for, with the last part of each path: a report is passed on to others."""
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
