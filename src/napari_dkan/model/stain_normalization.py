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
MIN_OPTICAL_DENSITY = 0.15  # mean optical density below which a pixel is taken for glass
ANGLE_PERCENTILE = 1.0  # percent of the angles that lie beyond a stain's own
AMOUNT_PERCENTILE = 99.0  # percentile of a stain's amount that is compared
MIN_STAINED_PIXELS = 500  # stained pixels from which a stain can be measured

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
    """Unit optical densities (red, green, blue) of the two stains, and their full amounts."""

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
        """Measured on stained pixels (N, 3), see `stained`."""
        density = _OPTICAL_DENSITY_LUT[pixels]
        plane = np.linalg.eigh(np.cov(density.T))[1][:, 1:]
        plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # into the densities' quadrant
        along = density @ plane
        angle = np.percentile(
            np.arctan2(along[:, 0], along[:, 1]), [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE]
        )
        one, other = (plane @ [np.sin(a), np.cos(a)] for a in angle)
        pair = np.array([one, other] if one[0] > other[0] else [other, one])
        amounts = np.percentile(density @ np.linalg.pinv(pair), AMOUNT_PERCENTILE, axis=0)
        return cls(
            _to_rgb_vector(pair[0]), _to_rgb_vector(pair[1]), (float(amounts[0]), float(amounts[1]))
        )

    def transform(self, pixels: RgbPixels, target: MacenkoStain) -> RgbPixels:
        """RGB (..., 3) of a slide of this stain -> RGB of the other."""
        own, wanted = (np.array([s.haematoxylin, s.eosin]) for s in (self, target))
        ratio = np.array(target.amounts) / self.amounts
        matrix = (np.linalg.pinv(own) * ratio) @ wanted
        light = INCIDENT_LIGHT * np.exp(
            -(_OPTICAL_DENSITY_LUT.astype(np.float32)[pixels] @ matrix.astype(np.float32))
        )
        return np.asarray(np.clip(light, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class ReinhardStain:
    """Mean and standard deviation of stained pixels: luminance, yellow to blue, red to green."""

    method: ClassVar[str] = "reinhard"
    mean: RgbVector
    spread: RgbVector

    def __post_init__(self) -> None:
        _validate_stain(self)
        if min(self.spread) <= 0:
            raise CheckpointError("its stain has no spread")

    @classmethod
    def from_pixels(cls, pixels: RgbPixels) -> ReinhardStain:
        """Measured on stained pixels (N, 3), see `stained`."""
        seen = _rgb_to_lab(pixels)
        return cls(
            _to_rgb_vector(seen.mean(axis=0)), _to_rgb_vector(np.maximum(seen.std(axis=0), 1e-6))
        )

    def transform(self, pixels: RgbPixels, target: ReinhardStain) -> RgbPixels:
        """RGB (..., 3) of a slide of this stain -> RGB of the other; glass stays as it is."""
        # means and spreads are set in logarithms of the cones' light, so all of it is one matrix
        back, ratio = np.linalg.inv(_LMS_TO_LAB), np.array(target.spread) / self.spread
        matrix = ((back * ratio) @ _LMS_TO_LAB).T.astype(np.float32)
        offset = (back @ (target.mean - ratio * self.mean) * np.log(10)).astype(np.float32)
        cones = np.exp(np.log(_rgb_to_lms(pixels)) @ matrix + offset)
        light = 256 * (cones @ np.linalg.inv(_RGB_TO_LMS).T.astype(np.float32)) - 1
        density = _OPTICAL_DENSITY_LUT.astype(np.float32)[pixels].mean(axis=-1, keepdims=True)
        tissue = np.clip(
            (density - MIN_OPTICAL_DENSITY / 3) / (MIN_OPTICAL_DENSITY - MIN_OPTICAL_DENSITY / 3),
            0,
            1,
        )  # no hard edge
        mixed = pixels + tissue * (light - pixels)
        return np.asarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


StainProfile = MacenkoStain | ReinhardStain
STAIN_METHODS: dict[str, type[MacenkoStain] | type[ReinhardStain]] = {
    "macenko": MacenkoStain,
    "reinhard": ReinhardStain,
}


@dataclass(frozen=True)
class StainNormalizer:
    """Pixels of a slide of one stain -> as if it had the other; both of one method."""

    source: StainProfile
    target: StainProfile

    def __call__(self, pixels: RgbPixels) -> RgbPixels:
        """RGB (..., 3) uint8 -> RGB (..., 3) uint8."""
        return self.source.transform(pixels, self.target)  # type: ignore[arg-type]


def select_stained_pixels(pixels: RgbPixels) -> RgbPixels:
    """Of RGB (..., 3) the pixels (N, 3) that absorb as H&E does: no glass, no ink.

    Both stains absorb most in green. Blue and green ink absorb more red, red ink nearly as much
    blue; black ink and folds absorb everything.
    """
    flat = pixels.reshape(-1, 3)
    red, green, blue = density = _OPTICAL_DENSITY_LUT[flat].T
    like = (
        density.mean(axis=0) >= MIN_OPTICAL_DENSITY
    )  # of each channel eosin would be lost, which red passes
    like &= (red <= 1.35 * green) & (blue <= 0.85 * green) & (density.min(axis=0) <= 1.2)
    return np.asarray(flat[like])


def measure_stain(method: str, groups: Sequence[RgbPixels]) -> StainProfile:
    """The stain of a slide from groups of its pixels, each RGB (..., 3): the middle of what the
    groups say, so that ink on a few of them does not count.

    Raises SlideError when too few pixels are stained.
    """
    kind = STAIN_METHODS[method]
    found = [
        pixels for pixels in map(select_stained_pixels, groups) if len(pixels) >= MIN_STAINED_PIXELS
    ]
    if not found:
        found = [select_stained_pixels(np.concatenate([g.reshape(-1, 3) for g in groups]))]
    if len(found[0]) < MIN_STAINED_PIXELS:
        raise SlideError("too little of it is stained")
    return compute_median_stain([kind.from_pixels(pixels) for pixels in found])


def compute_median_stain(stains: Sequence[StainProfile]) -> StainProfile:
    """The median of each number; colours keep their length. All of one method."""
    first = stains[0]
    values = {
        f.name: np.median([getattr(s, f.name) for s in stains], axis=0) for f in fields(first)
    }
    if isinstance(first, MacenkoStain):
        for name in ("haematoxylin", "eosin"):
            values[name] = values[name] / np.linalg.norm(values[name])
    return type(first)(**{name: tuple(map(float, v)) for name, v in values.items()})  # type: ignore[arg-type]


def stain_to_json(stain: StainProfile) -> dict[str, Any]:
    """A JSON object that `read_stain` turns back into an equal one."""
    return {"method": stain.method, **{k: list(v) for k, v in asdict(stain).items()}}


def stain_from_json(data: Any) -> StainProfile | None:
    """The checkpoint's entry; None where there is none.

    Raises CheckpointError when it is not one of ours, or a value is absurd.
    """
    if data is None:
        return None
    kind = STAIN_METHODS.get(str(data.get("method"))) if isinstance(data, dict) else None
    if kind is None:
        raise CheckpointError(
            "it wants a stain normalisation that is unknown here; update napari-dkan"
        )
    names = {f.name for f in fields(kind)}
    values = {k: tuple(v) for k, v in data.items() if k in names and isinstance(v, list)}
    if set(values) != names:
        raise CheckpointError("its stain normalisation is incomplete")
    return kind(**values)


def _rgb_to_lab(pixels: RgbPixels) -> Float64Array:
    """RGB (..., 3) -> luminance, yellow to blue, red to green (..., 3)."""
    return np.asarray(np.log10(_rgb_to_lms(pixels)) @ _LMS_TO_LAB.T)


def _rgb_to_lms(pixels: RgbPixels) -> NDArray[np.float32]:
    """RGB (..., 3) -> light that the eye's three cones catch (..., 3), 0..1."""
    light = (pixels.astype(np.float32) + 1) / 256
    return np.asarray(light @ _RGB_TO_LMS.T.astype(np.float32))


def _to_rgb_vector(values: Float64Array) -> RgbVector:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _validate_stain(stain: StainProfile) -> None:
    for field in fields(stain):
        values = getattr(stain, field.name)
        wanted = 2 if field.name == "amounts" else 3
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if (
            len(values) != wanted
            or len(numbers) != wanted
            or not all(abs(v) < 100 for v in numbers)
        ):
            raise CheckpointError(f"its stain normalisation has an impossible {field.name}")
