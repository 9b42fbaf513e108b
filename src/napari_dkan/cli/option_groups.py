"""Options that several commands share, in groups: a dataclass each, and what it makes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..batch.slide_job import SlideJob, TilePitch, split_names
from ..errors import SpotsError
from ..training.train_settings import Precision, SettingsPreset
from .shared_options import (
    DataOption,
    DevicesOption,
    EncoderOption,
    EncoderWeightsOption,
    FewGenesOption,
    GeneTextOption,
    ImageNameOption,
    LibraryOption,
    PanelOption,
    RegionObjectsOption,
    ResumeOption,
    RunFolderOption,
    SectionImageNameOption,
    SectionMppOption,
    SectionsOption,
    SettingChangesOption,
    SlideMppOption,
    StainOption,
    WholeGlassOption,
    echo_log,
    format_command_line,
    job_checkpoint,
    parse_section_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from ..inference.section_choices import SectionChoices
    from ..slide import Slide
    from ..training.fit.fit_model import TrainingHardware
    from ..training.train_settings import TrainSettings


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a group by the options of the group."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        source = inspect.signature(groups[name]).parameters if name in groups else None
        of_source = get_type_hints(groups[name], include_extras=True) if source else hints
        for key, option in (source or {name: parameter}).items():
            parameters.append(
                option.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=of_source[key])
            )

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{f.name: values.pop(f.name) for f in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **values)

    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class JobOptions:
    """How slides are predicted: `predict` and `batch`."""

    checkpoint: Annotated[Path | None, typer.Option(help="Default: the bundled one.")] = None
    features_encoder: Annotated[
        str | None,
        typer.Option(help="Who made the features, where the file does not say (uni, conch ...)."),
    ] = None
    region_objects: RegionObjectsOption = None
    tissue_only: Annotated[bool, typer.Option(help="Leave out tiles off the tissue.")] = True
    pitch: Annotated[TilePitch, typer.Option(help="Distance between tiles.")] = TilePitch.training
    mpp: SlideMppOption = None
    genes: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None
    zero_shot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:A,B]",
            help="Also genes outside the panel, by their text from `genes build`; A and B only.",
        ),
    ] = None
    allow_unproven: Annotated[
        bool, typer.Option(help="Such genes even where the card has no proof that it works.")
    ] = False
    encoder_weights: EncoderWeightsOption = None
    icc: Annotated[bool, typer.Option(help="Apply the slide's ICC profile.")] = False
    image_name: ImageNameOption = None
    whole_glass: WholeGlassOption = False

    def make_job(self, slide: str, out: Path, **own_options: Any) -> SlideJob:
        """Make the job of a slide, with further options of the command."""
        return SlideJob(
            slide,
            out,
            checkpoint=job_checkpoint(self.checkpoint),
            features_encoder=self.features_encoder,
            region_objects=self.region_objects and self.region_objects.value,
            tissue_only=self.tissue_only,
            pitch=self.pitch,
            mpp=self.mpp,
            genes=split_names(self.genes),
            zero_shot=self.zero_shot,
            allow_unproven=self.allow_unproven,
            encoder_weights=self.encoder_weights and self.encoder_weights.absolute(),
            icc=self.icc,
            image=self.image_name,
            whole_glass=self.whole_glass or None,
            **own_options,
        )


@dataclass(frozen=True)
class MeasuredOptions:
    """One measured section and its slide: `evaluate` and `report`."""

    image: Annotated[
        Path | None, typer.Option(help="The H&E slide; default the one beside an h5ad.")
    ] = None
    spots: Annotated[
        Path | None, typer.Option(help="Where the spots are, unless an h5ad of counts says it.")
    ] = None
    library: LibraryOption = None
    mpp: SlideMppOption = None
    image_name: ImageNameOption = None
    whole_glass: WholeGlassOption = False
    few_genes: FewGenesOption = False

    def read_section(self, counts: Path) -> AnnData:
        """Read counts, spots and image; raises SpotsError when something is missing."""
        from ..expression.readers.single_section import read_single_section
        from ..inference.section_pixel_size import find_qupath_mpp

        qupath_mpp = self.mpp
        if self.image is not None and self.image.exists():
            with self.open_slide(self.image) as slide:
                qupath_mpp = find_qupath_mpp(slide.pixel_size, self.mpp)
        data = read_single_section(self.image, counts, self.spots, self.library, qupath_mpp)
        if not data.uns["image"]:
            reason = data.uns.get("image_note") or f"{counts.name} has no image beside it"
            raise SpotsError(f"{reason}; give the slide by --image.")
        return self.choose_image(data)

    def choose_image(self, data: AnnData) -> AnnData:
        """Set which image of its slide's file a section is on."""
        from ..inference.section_choices import choose_section_image

        return choose_section_image(data, self.image_name, self.whole_glass)

    def open_slide(self, path: str | Path) -> Slide:
        """Open the chosen image of a slide."""
        from ..slide import open_slide

        return open_slide(path, image=self.image_name, whole_glass=self.whole_glass)

    def command_words(self) -> dict[str, Any]:
        """Return the options as `format_command_line` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class SlideOptions:
    """What is entered about the slides of several sections."""

    mpp: SectionMppOption = None
    image_name: SectionImageNameOption = None
    whole_glass: WholeGlassOption = False

    def choices(self) -> SectionChoices:
        """Parse them; raises SpotsError or SlideError for a wrong one."""
        from ..inference.section_choices import SectionChoices

        return SectionChoices.parse(self.mpp, self.image_name, self.whole_glass)

    def command_words(self) -> dict[str, Any]:
        """Return the options as `format_command_line` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class FitOptions:
    """Options of the commands that train networks: `train` and `crossval`."""

    data: DataOption
    sections: SectionsOption = None
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
        return {
            "gene_text_file": self.gene_text,
            "encoder": self.encoder,
            "encoder_weights": self.encoder_weights,
            "stain": self.stain and self.stain.value,
            "log": echo_log,
        }

    def format_command_line(self, name: str, order: str, **own_options: object) -> str:
        """Format the command with these and its own options, in this order of names."""
        names = self.section_names()
        values = {
            "data": self.data,
            "sections": names and ",".join(names),
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
