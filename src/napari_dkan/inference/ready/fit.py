"""Whether a feature file fits: made by the checkpoint's encoder, of such tiles, of this slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import SpotsError
from .features import PrecomputedFeatures
from .tile_file import TileFeatureFile, open_feature_file

if TYPE_CHECKING:
    from ...model import Checkpoint

SIDE_TOLERANCE = 0.02  # tiles may be so much larger or smaller than the checkpoint's
MIN_TILE_PX_RATIO = 0.97  # of the encoder's px at least: fewer would be a lower magnification
MAGNIFICATION_TIMES_MPP = 10.0  # magnification times um/px, as scanners understand it
MAX_MAGNIFICATION_RATIO = 2.0  # a scanner's magnification and its pixel size never differ so much

# TRIDENT's names (trident/patch_encoder_models/load.py) where they are not those of the model
_TRIDENT_ENCODER_NAMES = {
    "uni_v1": "uni",
    "uni_v2": "uni2-h",
    "hoptimus0": "h-optimus-0",
    "hoptimus1": "h-optimus-1",
    "conch_v1": "conch",
    "phikon_v2": "phikon-v2",
}


class SlideDimensions(Protocol):
    """What of a slide is needed here."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def name(self) -> str: ...


def load_precomputed_features(
    path: str | Path,
    slide: SlideDimensions,
    checkpoint: Checkpoint,
    mpp: float,
    encoder: str | None = None,
    weights: Path | None = None,
) -> PrecomputedFeatures:
    """The features of a TRIDENT or CLAM file, for `Predictor(..., ready=...)`.

    mpp : um per level-0 px. encoder : who made them, for a file that does not say.
    weights : local weights of the checkpoint's encoder; with them, or when they travel in the
    checkpoint, patches that the file lacks are encoded.

    Raises SpotsError that says in one sentence what does not match.
    """
    file = open_feature_file(path)
    _check_encoder(file, checkpoint, encoder)
    _check_tile_size(file, checkpoint, mpp)
    _check_slide(file, slide, mpp)
    alone = checkpoint.encoder_tensors is None and weights is None
    note = ""
    if file.slide_name and Path(file.slide_name).stem not in (slide.name, Path(slide.name).stem):
        note = (
            f"{file.path.name} was made of a slide named {file.slide_name}, this one is {slide.name}; "
            "make sure that they are the same."
        )
    return PrecomputedFeatures(file, mpp, alone, note)


def _check_encoder(file: TileFeatureFile, checkpoint: Checkpoint, encoder: str | None) -> None:
    from ...model.encoders import EXTERNAL_ENCODER

    name, spec = file.path.name, checkpoint.encoder
    wanted = _normalize_encoder_name(spec.name)
    if file.feature_dim != spec.dimension:
        raise SpotsError(
            f"{name} holds features of {file.feature_dim:,} numbers, but the checkpoint's encoder "
            f"{wanted} makes {spec.dimension:,}; extract them with {wanted}."
        )
    said = encoder or file.encoder_name
    if checkpoint.stain is not None:
        raise SpotsError(
            f"The checkpoint brings slides to one stain before it encodes them, which {name} did "
            "not; predict without the file."
        )
    if not said:
        raise SpotsError(
            f"{name} does not say which encoder made its features; if it was {wanted}, say so "
            f"with --features-encoder {wanted} (in the panel: Advanced)."
        )
    if spec.name != EXTERNAL_ENCODER and _normalize_encoder_name(said) != wanted:
        raise SpotsError(
            f"The features in {name} are of {_normalize_encoder_name(said)}, but the checkpoint needs those of "
            f"{wanted}; extract them with {wanted}, or choose another checkpoint."
        )


def _check_tile_size(file: TileFeatureFile, checkpoint: Checkpoint, mpp: float) -> None:
    name, um = file.path.name, file.tile_side_px * mpp
    patch, px = checkpoint.patch, checkpoint.encoder.px
    if abs(um / patch.um - 1) > SIDE_TOLERANCE:
        raise SpotsError(
            f"The tiles in {name} are {um:.0f} um wide ({file.tile_side_px:g} px of {mpp:.3g} um), but the "
            f"checkpoint needs {patch.um:.0f} um; extract tiles of {patch.um / mpp:.0f} "
            "level-0 px."
        )
    if file.tile_px is not None and file.tile_px < px * MIN_TILE_PX_RATIO:
        raise SpotsError(
            f"The tiles in {name} were read at {file.tile_px:g} px, but the checkpoint's encoder sees "
            f"them at {px} px; extract them at a higher magnification."
        )


def _check_slide(file: TileFeatureFile, slide: SlideDimensions, mpp: float) -> None:
    name, size = file.path.name, (slide.width, slide.height)
    low, high = (
        (file.centers - file.tile_side_px / 2).min(axis=0),
        (file.centers - file.tile_side_px / 2).max(axis=0),
    )
    if (low < 0).any() or (high >= size).any() or (file.slide_size is not None and file.slide_size != size):
        raise SpotsError(
            f"{name} is not of this slide ({size[0]:,} x {size[1]:,} px): its tiles lie on one of "
            + (
                f"{file.slide_size[0]:,.0f} x {file.slide_size[1]:,.0f} px."
                if file.slide_size is not None
                else "another size."
            )
        )
    if file.magnification is not None:
        ratio = file.magnification * mpp / MAGNIFICATION_TIMES_MPP
        if not 1 / MAX_MAGNIFICATION_RATIO < ratio < MAX_MAGNIFICATION_RATIO:
            raise SpotsError(
                f"{name} takes the slide for a {file.magnification:g}x scan, but it has "
                f"{mpp:.3g} um per px; check the pixel size."
            )


def _normalize_encoder_name(name: str) -> str:
    """One name for an encoder, however programs write it."""
    short = name.rpartition("/")[2].lower()
    return _TRIDENT_ENCODER_NAMES.get(short, short)
