"""Load sections from a data folder and prepare them for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy.spatial import cKDTree

from ...errors import SpotsError
from ...expression.label_scale import LabelScale
from ...expression.panel import Panel
from ...expression.readers.read_account import account_of
from ...inference.device_choice import pick_device
from ...inference.patch_features.stain_normalized import make_patch_reader, measure_slide_stain
from ...inference.section_choices import FROM_FILES, SectionChoices, open_section_slide
from ...inference.section_pixel_size import is_decided, resolve_section_pixel_size
from ...inference.slide_account import account_for_slide
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.encoders.encoder_spec import STAIN_ENCODER
from ...model.network.dkan_config import NO_TRUNK
from ...model.stain_normalization import StainProfile, compute_median_stain
from ..train_settings import LogFunction, TrainSettings, ignore_log
from .frozen_features import (
    ComputedFeatureSource,
    FeatureSource,
    FrozenEncoder,
    StoredFeatureSource,
)
from .prepared_section import (
    EncodedSection,
    PreparedSection,
    SectionEncoder,
    encode_section,
    prepare_section,
)

if TYPE_CHECKING:
    from anndata import AnnData


DEFAULT_LABEL_SCALE = LabelScale()
PUBLISHED_PATCH_PX = 224  # side of a published patch at level 0, on every scanner


def read_section_data(
    root: str | Path, names: Sequence[str] | None, choices: SectionChoices = FROM_FILES
) -> list[AnnData]:
    """Read sections by name, or all of a folder, in any supported layout.

    Parameters
    ----------
    choices
        What is entered by hand: pixel sizes, images, the frame.

    Raises
    ------
    SpotsError
        For an unknown name, with the names of the sections in the folder.
    """
    from ...expression.readers.discovery import read_sections

    sections = read_sections(root, names)
    choices.check_names([str(data.uns["section"]) for data in sections])
    return [choices.enter(data) for data in sections]


def load_sections(
    root: str | Path,
    names: Sequence[str] | None,
    panel: Panel,
    settings: TrainSettings,
    *,
    encoder: str | None = None,
    encoder_weights: str | Path | None = None,
    stain: str | None = None,
    device: str | None = None,
    choices: SectionChoices = FROM_FILES,
    log: LogFunction = ignore_log,
) -> list[PreparedSection]:
    """Load sections of a folder with their labels and the network's inputs.

    Parameters
    ----------
    names
        Names of the sections; None for all.
    encoder
        Name of a frozen tile encoder, whose features are computed here. Stored features (the
        layout published with DKAN) are used unchanged. With neither, a stain encoder is fitted
        on the training sections of each fold.
    stain
        "macenko" or "reinhard" normalizes every section to the median stain of all of them. That
        target uses no labels, so it includes the test section of a fold.
    choices
        See `read_section_data`.

    Raises
    ------
    DkanError
        Naming the file that is missing or not as expected.
    """
    frozen_encoder = (
        None if encoder is None else FrozenEncoder.load(encoder, encoder_weights, device)
    )
    settings = match_patch_to_encoder(settings, frozen_encoder)
    sections = read_section_data(root, names, choices)
    target = None if stain is None else compute_stain_target(sections, stain)
    has_features = any(d.uns.get("features") for d in sections)
    if target is not None and has_features and frozen_encoder is None:
        raise SpotsError(
            "Stored features were made of slides as they are; name an encoder with --encoder, or "
            "leave out --stain."
        )
    prepared = []
    for data in sections:
        section = load_section(data, panel, settings, frozen_encoder, stain=target, options=choices)
        prepared.append(section)
        dropped = f", {', '.join(section.dropped_spots)} dropped" if section.dropped_spots else ""
        log(f"{section.name}: {len(section)} spots{dropped}, {section.mpp:.4f} um/px")
    return prepared


def match_patch_to_encoder(settings: TrainSettings, encoder: FrozenEncoder | None) -> TrainSettings:
    """Give patches the encoder's side where no trunk takes them, so that one read serves both."""
    if encoder is None or encoder.parts is None or settings.trunk != NO_TRUNK:
        return settings
    return replace(settings, patch_px=encoder.encoder.spec.px)


def load_section(
    data: AnnData,
    panel: Panel,
    settings: TrainSettings,
    encoder: FrozenEncoder | None = None,
    scale: LabelScale = DEFAULT_LABEL_SCALE,
    stain: StainProfile | None = None,
    options: SectionChoices = FROM_FILES,
) -> PreparedSection:
    """Prepare a section for training; ``uns['image']`` is the path of its image.

    Parameters
    ----------
    stain
        Stain to which the slide is normalized first.
    options
        With the options of the command line that correct what the files say, for errors.
    """
    if not data.uns.get("image"):
        raise SpotsError(
            f"{data.uns['section']} has no image; training reads the patches around its spots."
        )
    data = _fill_spot_geometry(data, options.mpp.option)
    has_features = bool(data.uns.get("features")) and bool(data.uns.get("neighbor_features"))
    features: FeatureSource | None = None
    patch_um = settings.patch_um
    if encoder is not None:
        features = ComputedFeatureSource(encoder)
    elif has_features:
        features = StoredFeatureSource()
        patch_um = PUBLISHED_PATCH_PX * float(data.uns["mpp"])
    with open_section_slide(data.uns) as slide:
        section = prepare_section(
            data,
            make_patch_reader(slide, float(data.uns["mpp"]), stain),
            panel,
            scale,
            patch_um,
            settings.patch_px,
            features,
            settings.augmentation,
            slide.scan_area,
            options.glass_option,
        )
        origin = str(data.uns.get("mpp_origin", ""))
        account = account_for_slide(account_of(data), slide, section.mpp, origin)
        return replace(section, slide=slide.fingerprint(), stain=stain, account=account)


def compute_stain_target(sections: Sequence[AnnData], method: str) -> StainProfile:
    """Compute the median stain of sections.

    Raises
    ------
    SlideError
        When the stain of a section cannot be measured.
    """
    stains = []
    for data in map(_fill_spot_geometry, sections):
        with open_section_slide(data.uns) as slide:
            stains.append(measure_slide_stain(slide, float(data.uns["mpp"]), method))
    return compute_median_stain(stains)


def _fill_spot_geometry(data: AnnData, mpp_option: str = "--mpp") -> AnnData:
    """Fill in pixel size, spot pitch and spot diameter where the files state none.

    The pixel size then comes from the image, the pitch from the distances between the spots.

    Raises
    ------
    SpotsError
        The pixel size is unknown.
    SlideError
        The files, the image and the spot array contradict each other.
    """
    uns = dict(data.uns)
    if not is_decided(uns):
        with open_section_slide(uns) as slide:
            advice = (
                f"give the right one with {mpp_option}, or {mpp_option} NAME=UM for one section"
            )
            size = resolve_section_pixel_size(slide, uns, advice=advice)
        if size is None:
            raise SpotsError(
                f"Neither the files of {uns['section']} nor its image state the pixel size, "
                f"and its spots are on no array of known pitch; give it with {mpp_option}, or add "
                "mpp to uns of an h5ad."
            )
        if not np.isfinite(float(uns.get("mpp", np.nan))):
            uns["mpp"], uns["mpp_origin"] = size.mpp, size.origin
    if not np.isfinite(float(uns.get("spot_pitch_um", np.nan))):
        xy = np.asarray(data.obsm["spatial"], dtype=float)
        nearest = cKDTree(xy).query(xy, k=min(2, len(xy)))[0].reshape(len(xy), -1)[:, -1]
        uns["spot_pitch_um"] = float(np.median(nearest)) * float(uns["mpp"])
    if not np.isfinite(float(uns.get("spot_diameter_um", np.nan))):
        uns["spot_diameter_um"] = float(uns["spot_pitch_um"]) / 2
    data = data.copy()
    data.uns = uns
    return data


def adapt_settings_to_sections(
    settings: TrainSettings, sections: Sequence[PreparedSection]
) -> TrainSettings:
    """Set the network's width, and the patch side of stored features, by frozen features."""
    features = sections[0].frozen_features
    if features is None:
        return settings
    if features.parts is not None:
        px = sections[0].patches.shape[-1]
        return replace(settings, features=features.spec.dimension, patch_px=px)
    settings = replace(settings, dim=features.spec.dimension)
    if features.is_from_file:
        settings = replace(settings, patch_um=PUBLISHED_PATCH_PX * median(s.mpp for s in sections))
    return settings


class CheckpointSectionReader:
    """Reader of measured sections with the inputs of a checkpoint.

    It uses the checkpoint's tile encoder, patch, stain and label scale.

    Parameters
    ----------
    weights
        Local weights of the tile encoder.
    device
        Device of a frozen tile encoder; None for the best one.
    options
        See `load_section`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: str | Path | None = None,
        device: str | None = None,
        options: SectionChoices = FROM_FILES,
    ) -> None:
        self._options = options
        self._checkpoint = checkpoint
        self._settings = TrainSettings(
            patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
        )
        self._encoder = checkpoint.build_tile_encoder(weights)
        self._frozen_encoder: FrozenEncoder | None = None
        if checkpoint.encoder.name != STAIN_ENCODER:
            picked = pick_device(device)
            self._frozen_encoder = FrozenEncoder(self._encoder.to(picked), picked)

    def read(self, data: AnnData, panel: Panel, scale: LabelScale | None = None) -> EncodedSection:
        """Read a section; `scale` replaces the checkpoint's label scale."""
        section = load_section(
            data,
            panel,
            self._settings,
            self._frozen_encoder,
            scale or self._checkpoint.label_scale,
            self._checkpoint.stain,
            self._options,
        )
        # a frozen encoder is not asked to project: the section has its features
        return encode_section(section, cast(SectionEncoder, self._encoder))
