"""Load sections from a data folder and prepare them for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from ...errors import SpotsError
from ...expression.label_scale import LabelScale
from ...expression.panel import Panel
from ...inference.patch_features.stain_normalized import make_patch_reader, measure_slide_stain
from ...model.stain_normalization import StainProfile, compute_median_stain
from ...slide import open_slide
from ..train_settings import TrainSettings
from .frozen_features import FeatureSource, FrozenEncoder, StoredFeatureSource
from .prepared_section import PreparedSection, prepare_section

if TYPE_CHECKING:
    from anndata import AnnData


LogFunction = Callable[[str], None]
DEFAULT_LABEL_SCALE = LabelScale()
PUBLISHED_PATCH_PX = 224  # side of a published patch, at level 0 whatever the scanner


def read_section_data(root: str | Path, names: Sequence[str] | None) -> list[AnnData]:
    """Sections by name, in any layout that is known; all of them without names.

    Raises SpotsError naming the sections that are there.
    """
    from ...expression.readers.discovery import read_sections

    return read_sections(root, names)


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
    log: LogFunction = lambda line: None,
) -> list[PreparedSection]:
    """Sections of a folder, each with its labels and what the network sees of its slide.

    encoder : name of a frozen tile encoder whose features are computed here, once. Stored
        features (the layout published with DKAN) are used as they are. With neither, a stain
        encoder is fitted on the training sections of each fold.
    stain : "macenko" or "reinhard" normalises every section to the middle of all of them. That
        target holds no labels, so the section left out of a fold counts in it too.

    Raises a DkanError naming the file that is missing or not as expected.
    """
    named = None if encoder is None else FrozenEncoder.load(encoder, encoder_weights, device)
    found = read_section_data(root, names)
    target = None if stain is None else compute_stain_target(found, stain)
    if target is not None and any(d.uns.get("features") for d in found) and named is None:
        raise SpotsError(
            "Stored features were made of slides as they are; name an encoder with --encoder, or "
            "leave out --stain."
        )
    sections = []
    for data in found:
        section = load_section(data, panel, settings, named, stain=target)
        sections.append(section)
        without = f", {', '.join(section.dropped_spots)} dropped" if section.dropped_spots else ""
        log(f"{section.name}: {len(section)} spots{without}, {section.mpp:.4f} um/px")
    return sections


def load_section(
    data: AnnData,
    panel: Panel,
    settings: TrainSettings,
    encoder: FrozenEncoder | None = None,
    scale: LabelScale = DEFAULT_LABEL_SCALE,
    stain: StainProfile | None = None,
) -> PreparedSection:
    """A section with the path of its image in ``uns['image']``, made ready for training.

    stain : what its slide's stain is changed to first.
    """
    if not data.uns.get("image"):
        raise SpotsError(
            f"{data.uns['section']} has no image; training reads the patches around its spots."
        )
    data = _fill_spot_geometry(data)
    stored = bool(data.uns.get("features")) and bool(data.uns.get("neighbor_features"))
    features: FeatureSource | None = None
    patch_um = settings.patch_um
    if encoder is not None:
        features = encoder.make_feature_source()
    elif stored:
        features = StoredFeatureSource()
        patch_um = PUBLISHED_PATCH_PX * float(data.uns["mpp"])
    with open_slide(data.uns["image"]) as slide:
        section = prepare_section(
            data,
            make_patch_reader(slide, float(data.uns["mpp"]), stain),
            panel,
            scale,
            patch_um,
            settings.patch_px,
            features,
            settings.augmentation,
        )
        return replace(section, slide=slide.fingerprint(), stain=stain)


def compute_stain_target(sections: Sequence[AnnData], method: str) -> StainProfile:
    """The middle of the sections' stains. Raises SlideError when one cannot be measured."""
    stains = []
    for data in map(_fill_spot_geometry, sections):
        with open_slide(data.uns["image"]) as slide:
            stains.append(measure_slide_stain(slide, float(data.uns["mpp"]), method))
    return compute_median_stain(stains)


def _fill_spot_geometry(data: AnnData) -> AnnData:
    """The section with its pixel size, and the pitch and diameter of its spots.

    Where the files are silent the image may state the one, and the spots' own spacing the other.
    """
    uns = dict(data.uns)
    if not np.isfinite(float(uns.get("mpp", np.nan))):
        with open_slide(uns["image"]) as slide:
            if slide.pixel_size is None:
                raise SpotsError(
                    f"Neither the files of {uns['section']} nor its image state the pixel size, "
                    "and its spots are on no array of known pitch; add mpp to uns of an h5ad."
                )
            uns["mpp"] = slide.pixel_size.mpp
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
    """The settings with what ready features decide: the network's width and the patch's side."""
    ready = sections[0].frozen_features
    if ready is None:
        return settings
    settings = replace(settings, dim=ready.spec.dimension)
    if ready.is_from_file:
        settings = replace(settings, patch_um=PUBLISHED_PATCH_PX * median(s.mpp for s in sections))
    return settings
