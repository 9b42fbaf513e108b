"""Options shared by several commands, and their parsing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..batch.slide_job import split_names
from ..errors import SpotsError
from ..spatial.object_types import RegionObjects
from ..training.train_settings import Precision, SettingsPreset, StainMethod

if TYPE_CHECKING:
    from anndata import AnnData

    from ..training.fit.fit_model import TrainingHardware
    from ..training.train_settings import TrainSettings


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
ReportOption = Annotated[
    Path, typer.Option("--out", "-o", help="The report (.json).", show_default=False)
]
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


LibraryOption = Annotated[
    str | None, typer.Option(help="The section, where an h5ad holds several.")
]


@dataclass(frozen=True)
class FitOptions:
    """Options of the commands that train networks: `train` and `crossval`."""

    data: DataOption
    sections: SectionsOption = None
    mpp: SectionMppOption = None
    panel: PanelOption = None
    gene_text: GeneTextOption = None
    preset: Annotated[SettingsPreset, typer.Option(help="The settings to train with.")] = (
        SettingsPreset.bundled
    )
    set_: SettingChangesOption = None
    encoder: EncoderOption = None
    encoder_weights: EncoderWeightsOption = None
    stain: StainOption = None
    devices: DevicesOption = 1
    precision: Annotated[Precision, typer.Option(help="Of the forward pass.")] = Precision.auto
    run: RunFolderOption = None
    resume: ResumeOption = False

    def section_names(self) -> list[str] | None:
        """Parse the names of the sections; None for all."""
        return parse_section_names(self.sections)

    def hardware(self) -> TrainingHardware:
        """Make the training hardware; raises DkanError for hardware this machine lacks."""
        from ..training.fit.fit_model import TrainingHardware

        hardware = TrainingHardware(self.devices, self.precision)
        hardware.trainer_options()
        return hardware

    def settings(self, seed: int, epochs: int | None) -> TrainSettings:
        """Make the training settings; raises SpotsError for a wrong change."""
        from ..training.train_settings import apply_setting_changes, make_preset_settings

        settings = replace(make_preset_settings(self.preset), seed=seed)
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        return apply_setting_changes(settings, self.set_ or ())

    def run_folder(self, out: Path) -> Path:
        """Return the folder of the run, by default beside the output."""
        return self.run or out.with_suffix(".run")

    def input_arguments(self) -> dict[str, Any]:
        """Make the keyword arguments of `prepare_training_inputs` for these options."""
        from ..inference.section_pixel_size import EnteredMpp

        return {
            "gene_text_file": self.gene_text,
            "encoder": self.encoder,
            "encoder_weights": self.encoder_weights,
            "stain": self.stain and self.stain.value,
            "entered_mpp": EnteredMpp.parse(self.mpp),
            "log": echo_log,
        }

    def format_command_line(self, name: str, order: str, **own_options: object) -> str:
        """Format the command with these and its own options, in this order of names."""
        names = self.section_names()
        values = {
            "data": self.data,
            "sections": names and ",".join(names),
            "mpp": self.mpp,
            "panel": self.panel,
            "gene_text": self.gene_text,
            "preset": self.preset.value,
            "set": self.set_,
            "encoder": self.encoder,
            "stain": self.stain and self.stain.value,
            "precision": self.precision.value,
            **own_options,
        }
        return format_command_line(name, **{key: values[key] for key in order.split()})


def with_fit_options(order: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the fields of `FitOptions` to the options of a command.

    The command gets them as one object, its first argument.

    Parameters
    ----------
    order
        Names of all options in the order of `--help`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(FitOptions, include_extras=True)
        hints |= get_type_hints(command, include_extras=True)
        defaults = {
            name: parameter.default
            for function in (FitOptions, command)
            for name, parameter in inspect.signature(function).parameters.items()
        }
        shared = [f.name for f in fields(FitOptions)]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            options = FitOptions(**{name: values.pop(name) for name in shared})
            command(options, **values)

        names = order.split()
        run.__annotations__ = {name: hints[name] for name in names} | {"return": None}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=defaults[name],
                    annotation=hints[name],
                )
                for name in names
            ]
        )
        return run

    return decorate


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


def read_section_with_image(
    image: Path | None, counts: Path, spots: Path | None, library: str | None = None
) -> AnnData:
    """Read a measured section with its image; raises SpotsError when something is missing."""
    from ..expression.readers.single_section import read_single_section

    data = read_single_section(image, counts, spots, library)
    if not data.uns["image"]:
        raise SpotsError(f"{counts.name} has no image beside it; give the slide by --image.")
    return data


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
