"""Stain normalisation of H&E pixels to the stain of the training sections.

Two methods on RGB of 0..255. Macenko et al. 2009 separates haematoxylin from eosin in optical
density and sets the colour and the amount of each. Reinhard et al. 2001 sets mean and standard
deviation of the three channels of the decorrelated colour space of Ruderman et al. 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, SlideError

INCIDENT_LIGHT = 240.0  # through empty glass
MIN_OPTICAL_DENSITY = 0.15  # mean optical density below which a pixel is glass
ANGLE_PERCENTILE = 1.0  # percent of the angles beyond that of a stain
AMOUNT_PERCENTILE = 99.0  # percentile of a stain's amounts that is its full amount
MIN_STAINED_PIXELS = 500  # from which a stain can be measured

# Optical densities of haematoxylin, eosin and the rest (Ruifrok and Johnston, 2001).
RUIFROK_STAIN_VECTORS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))

RgbVector = tuple[float, float, float]
RgbPixels = NDArray[np.uint8]
Float64Array = NDArray[np.float64]

_OPTICAL_DENSITY_LUT = -np.log((np.arange(256) + 1) / INCIDENT_LIGHT)

_RGB_TO_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
)
_LMS_TO_LAB = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]


@dataclass(frozen=True)
class MacenkoStain:
    """Stain by Macenko et al. 2009.

    Attributes
    ----------
    haematoxylin, eosin
        Unit optical densities (red, green, blue).
    amounts
        Full amounts of the two stains.
    """

    method: ClassVar[str] = "macenko"
    haematoxylin: RgbVector
    eosin: RgbVector
    amounts: tuple[float, float]

    def __post_init__(self) -> None:
        _validate_stain(self)
        colours = np.array([self.haematoxylin, self.eosin])
        if min(self.amounts) <= 0 or np.linalg.svd(colours)[1][-1] < 1e-3:
            raise CheckpointError("its stains cannot be told apart")

    @classmethod
    def from_pixels(cls, pixels: RgbPixels) -> MacenkoStain:
        """Measure the stain on pixels (N, 3) of `select_stained_pixels`."""
        density = _OPTICAL_DENSITY_LUT[pixels]
        plane = np.linalg.eigh(np.cov(density.T))[1][:, 1:]
        plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # towards positive densities
        projected = density @ plane
        angles = np.arctan2(projected[:, 0], projected[:, 1])
        limits = np.percentile(angles, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
        first, second = (plane @ [np.sin(a), np.cos(a)] for a in limits)
        # Haematoxylin absorbs more red than eosin.
        stains = np.array([first, second] if first[0] > second[0] else [second, first])
        amounts = np.percentile(density @ np.linalg.pinv(stains), AMOUNT_PERCENTILE, axis=0)
        return cls(
            _to_rgb_vector(stains[0]),
            _to_rgb_vector(stains[1]),
            (float(amounts[0]), float(amounts[1])),
        )

    def transform(self, pixels: RgbPixels, target: MacenkoStain) -> RgbPixels:
        """Transform RGB (..., 3) from this stain to the target."""
        source_stains, target_stains = (
            np.array([stain.haematoxylin, stain.eosin]) for stain in (self, target)
        )
        ratio = np.array(target.amounts) / self.amounts
        matrix = (np.linalg.pinv(source_stains) * ratio) @ target_stains
        light = INCIDENT_LIGHT * np.exp(
            -(_OPTICAL_DENSITY_LUT.astype(np.float32)[pixels] @ matrix.astype(np.float32))
        )
        return np.asarray(np.clip(light, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class ReinhardStain:
    """Stain by Reinhard et al. 2001.

    Attributes
    ----------
    mean, spread
        Mean and standard deviation of stained pixels in luminance, yellow to blue and red to green.
    """

    method: ClassVar[str] = "reinhard"
    mean: RgbVector
    spread: RgbVector

    def __post_init__(self) -> None:
        _validate_stain(self)
        if min(self.spread) <= 0:
            raise CheckpointError("its stain has no spread")

    @classmethod
    def from_pixels(cls, pixels: RgbPixels) -> ReinhardStain:
        """Measure the stain on pixels (N, 3) of `select_stained_pixels`."""
        lab = _rgb_to_lab(pixels)
        spread = np.maximum(lab.std(axis=0), 1e-6)
        return cls(_to_rgb_vector(lab.mean(axis=0)), _to_rgb_vector(spread))

    def transform(self, pixels: RgbPixels, target: ReinhardStain) -> RgbPixels:
        """Transform RGB (..., 3) from this stain to the target; glass does not change."""
        # Mean and standard deviation are set in logarithms of the cones' light, so the whole
        # transform is one matrix.
        lab_to_lms, ratio = np.linalg.inv(_LMS_TO_LAB), np.array(target.spread) / self.spread
        matrix = ((lab_to_lms * ratio) @ _LMS_TO_LAB).T.astype(np.float32)
        offset = (lab_to_lms @ (target.mean - ratio * self.mean) * np.log(10)).astype(np.float32)
        cones = np.exp(np.log(_rgb_to_lms(pixels)) @ matrix + offset)
        light = 256 * (cones @ np.linalg.inv(_RGB_TO_LMS).T.astype(np.float32)) - 1
        density = _OPTICAL_DENSITY_LUT.astype(np.float32)[pixels].mean(axis=-1, keepdims=True)
        # The transition from glass to tissue is gradual, without a visible edge.
        lowest = MIN_OPTICAL_DENSITY / 3
        tissue = np.clip((density - lowest) / (MIN_OPTICAL_DENSITY - lowest), 0, 1)
        mixed = pixels + tissue * (light - pixels)
        return np.asarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


StainProfile = MacenkoStain | ReinhardStain
STAIN_METHODS: dict[str, type[MacenkoStain] | type[ReinhardStain]] = {
    "macenko": MacenkoStain,
    "reinhard": ReinhardStain,
}


@dataclass(frozen=True)
class StainNormalizer:
    """Normalise pixels from the stain of a slide to a target stain, both of one method."""

    source: StainProfile
    target: StainProfile

    def __call__(self, pixels: RgbPixels) -> RgbPixels:
        """Normalise RGB (..., 3) uint8 -> RGB (..., 3) uint8."""
        return self.source.transform(pixels, self.target)  # type: ignore[arg-type]


def select_stained_pixels(pixels: RgbPixels) -> RgbPixels:
    """Select from RGB (..., 3) the pixels (N, 3) that absorb like H&E: no glass, no ink.

    Both stains absorb most in green. Blue and green ink absorb more red, red ink nearly as much
    blue; black ink and folds absorb everything.
    """
    flat = pixels.reshape(-1, 3)
    red, green, blue = density = _OPTICAL_DENSITY_LUT[flat].T
    # The mean, because eosin absorbs hardly any red.
    stained = density.mean(axis=0) >= MIN_OPTICAL_DENSITY
    stained &= (red <= 1.35 * green) & (blue <= 0.85 * green) & (density.min(axis=0) <= 1.2)
    return np.asarray(flat[stained])


def measure_stain(method: str, groups: Sequence[RgbPixels]) -> StainProfile:
    """Measure the stain of a slide as the median over groups of its pixels.

    Ink on a few of the groups has no influence.

    Parameters
    ----------
    method
        "macenko" or "reinhard".
    groups
        Each RGB (..., 3).

    Raises
    ------
    SlideError
        If too few pixels are stained.
    """
    profile_type = STAIN_METHODS[method]
    stained = [select_stained_pixels(group) for group in groups]
    large = [pixels for pixels in stained if len(pixels) >= MIN_STAINED_PIXELS]
    if not large:
        large = [select_stained_pixels(np.concatenate([g.reshape(-1, 3) for g in groups]))]
    if len(large[0]) < MIN_STAINED_PIXELS:
        raise SlideError("too little of it is stained")
    return compute_median_stain([profile_type.from_pixels(pixels) for pixels in large])


def compute_median_stain(stains: Sequence[StainProfile]) -> StainProfile:
    """Take the median of each number of stains of one method; colours remain unit vectors."""
    first = stains[0]
    values = {
        f.name: np.median([getattr(s, f.name) for s in stains], axis=0) for f in fields(first)
    }
    if isinstance(first, MacenkoStain):
        for name in ("haematoxylin", "eosin"):
            values[name] = values[name] / np.linalg.norm(values[name])
    return type(first)(**{name: tuple(map(float, v)) for name, v in values.items()})  # type: ignore[arg-type]


def stain_to_json(stain: StainProfile) -> dict[str, Any]:
    """Return a JSON object from which `stain_from_json` makes an equal stain."""
    return {"method": stain.method, **{k: list(v) for k, v in asdict(stain).items()}}


def stain_from_json(data: Any) -> StainProfile | None:
    """Build from a checkpoint's entry; None if it has none.

    Raises CheckpointError if the method is unknown or a value is out of range.
    """
    if data is None:
        return None
    profile_type = STAIN_METHODS.get(str(data.get("method"))) if isinstance(data, dict) else None
    if profile_type is None:
        raise CheckpointError(
            "it wants a stain normalisation that is unknown here; update napari-dkan"
        )
    names = {f.name for f in fields(profile_type)}
    values = {k: tuple(v) for k, v in data.items() if k in names and isinstance(v, list)}
    if set(values) != names:
        raise CheckpointError("its stain normalisation is incomplete")
    return profile_type(**values)


def _rgb_to_lab(pixels: RgbPixels) -> Float64Array:
    """Convert RGB (..., 3) to luminance, yellow to blue and red to green (..., 3)."""
    return np.asarray(np.log10(_rgb_to_lms(pixels)) @ _LMS_TO_LAB.T)


def _rgb_to_lms(pixels: RgbPixels) -> NDArray[np.float32]:
    """Convert RGB (..., 3) to the light in the three cones of the eye (..., 3), 0..1."""
    light = (pixels.astype(np.float32) + 1) / 256
    return np.asarray(light @ _RGB_TO_LMS.T.astype(np.float32))


def _to_rgb_vector(values: Float64Array) -> RgbVector:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _validate_stain(stain: StainProfile) -> None:
    for field in fields(stain):
        values = getattr(stain, field.name)
        length = 2 if field.name == "amounts" else 3
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if not len(values) == len(numbers) == length or not all(abs(v) < 100 for v in numbers):
            raise CheckpointError(f"its stain normalisation has an impossible {field.name}")
