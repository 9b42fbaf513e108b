"""Stain normalisation: a slide's pixels as if it had been stained like the training sections.

Two ways, on RGB of 0..255: Macenko et al. 2009 separates haematoxylin from eosin in optical
density and sets the colour and the amount of each; Reinhard et al. 2001 sets mean and spread of
the three channels of the decorrelated colour space of Ruderman et al. 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, SlideError

LIGHT = 240.0  # through empty glass
CLEAR = 0.15  # mean optical density below which a pixel is taken for glass
EDGE = 1.0  # percent of the angles that lie beyond a stain's own
FULL = 99.0  # percentile of a stain's amount that is compared
FEWEST = 500  # stained pixels from which a stain can be measured

Vector = tuple[float, float, float]
Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]

_DENSITY = -np.log((np.arange(256) + 1) / LIGHT)

_TO_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_TO_OPPONENTS = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]


@dataclass(frozen=True)
class Macenko:
    """Unit optical densities (red, green, blue) of the two stains, and their full amounts."""

    method: ClassVar[str] = "macenko"
    haematoxylin: Vector
    eosin: Vector
    amounts: tuple[float, float]

    def __post_init__(self) -> None:
        _require(self)
        colours = np.array([self.haematoxylin, self.eosin])
        if min(self.amounts) <= 0 or np.linalg.svd(colours)[1][-1] < 1e-3:
            raise CheckpointError("its stains cannot be told apart")

    @classmethod
    def of(cls, pixels: Pixels) -> Macenko:
        """Measured on stained pixels (N, 3), see `stained`."""
        density = _DENSITY[pixels]
        plane = np.linalg.eigh(np.cov(density.T))[1][:, 1:]
        plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)  # into the densities' quadrant
        along = density @ plane
        angle = np.percentile(np.arctan2(along[:, 0], along[:, 1]), [EDGE, 100 - EDGE])
        one, other = (plane @ [np.sin(a), np.cos(a)] for a in angle)
        pair = np.array([one, other] if one[0] > other[0] else [other, one])
        amounts = np.percentile(density @ np.linalg.pinv(pair), FULL, axis=0)
        return cls(_vector(pair[0]), _vector(pair[1]), (float(amounts[0]), float(amounts[1])))

    def change(self, pixels: Pixels, to: Macenko) -> Pixels:
        """RGB (..., 3) of a slide of this stain -> RGB of the other."""
        own, wanted = (np.array([s.haematoxylin, s.eosin]) for s in (self, to))
        ratio = np.array(to.amounts) / self.amounts
        matrix = (np.linalg.pinv(own) * ratio) @ wanted
        light = LIGHT * np.exp(-(_DENSITY.astype(np.float32)[pixels] @ matrix.astype(np.float32)))
        return np.asarray(np.clip(light, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Reinhard:
    """Mean and standard deviation of stained pixels: luminance, yellow to blue, red to green."""

    method: ClassVar[str] = "reinhard"
    mean: Vector
    spread: Vector

    def __post_init__(self) -> None:
        _require(self)
        if min(self.spread) <= 0:
            raise CheckpointError("its stain has no spread")

    @classmethod
    def of(cls, pixels: Pixels) -> Reinhard:
        """Measured on stained pixels (N, 3), see `stained`."""
        seen = _opponents(pixels)
        return cls(_vector(seen.mean(axis=0)), _vector(np.maximum(seen.std(axis=0), 1e-6)))

    def change(self, pixels: Pixels, to: Reinhard) -> Pixels:
        """RGB (..., 3) of a slide of this stain -> RGB of the other; glass stays as it is."""
        # means and spreads are set in logarithms of the cones' light, so all of it is one matrix
        back, ratio = np.linalg.inv(_TO_OPPONENTS), np.array(to.spread) / self.spread
        matrix = ((back * ratio) @ _TO_OPPONENTS).T.astype(np.float32)
        offset = (back @ (to.mean - ratio * self.mean) * np.log(10)).astype(np.float32)
        cones = np.exp(np.log(_cones(pixels)) @ matrix + offset)
        light = 256 * (cones @ np.linalg.inv(_TO_CONES).T.astype(np.float32)) - 1
        density = _DENSITY.astype(np.float32)[pixels].mean(axis=-1, keepdims=True)
        tissue = np.clip((density - CLEAR / 3) / (CLEAR - CLEAR / 3), 0, 1)  # no hard edge
        mixed = pixels + tissue * (light - pixels)
        return np.asarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


Stain = Macenko | Reinhard
METHODS: dict[str, type[Macenko] | type[Reinhard]] = {"macenko": Macenko, "reinhard": Reinhard}


@dataclass(frozen=True)
class Normaliser:
    """Pixels of a slide of one stain -> as if it had the other; both of one method."""

    own: Stain
    target: Stain

    def __call__(self, pixels: Pixels) -> Pixels:
        """RGB (..., 3) uint8 -> RGB (..., 3) uint8."""
        return self.own.change(pixels, self.target)  # type: ignore[arg-type]


def stained(pixels: Pixels) -> Pixels:
    """Of RGB (..., 3) the pixels (N, 3) that absorb as H&E does: no glass, no ink.

    Both stains absorb most in green. Blue and green ink absorb more red, red ink nearly as much
    blue; black ink and folds absorb everything.
    """
    flat = pixels.reshape(-1, 3)
    red, green, blue = density = _DENSITY[flat].T
    like = density.mean(axis=0) >= CLEAR  # of each channel eosin would be lost, which red passes
    like &= (red <= 1.35 * green) & (blue <= 0.85 * green) & (density.min(axis=0) <= 1.2)
    return np.asarray(flat[like])


def measure(method: str, groups: Sequence[Pixels]) -> Stain:
    """The stain of a slide from groups of its pixels, each RGB (..., 3): the middle of what the
    groups say, so that ink on a few of them does not count.

    Raises SlideError when too few pixels are stained.
    """
    kind = METHODS[method]
    found = [pixels for pixels in map(stained, groups) if len(pixels) >= FEWEST]
    if not found:
        found = [stained(np.concatenate([g.reshape(-1, 3) for g in groups]))]
    if len(found[0]) < FEWEST:
        raise SlideError("too little of it is stained")
    return middle_of([kind.of(pixels) for pixels in found])


def middle_of(stains: Sequence[Stain]) -> Stain:
    """The median of each number; colours keep their length. All of one method."""
    first = stains[0]
    values = {
        f.name: np.median([getattr(s, f.name) for s in stains], axis=0) for f in fields(first)
    }
    if isinstance(first, Macenko):
        for name in ("haematoxylin", "eosin"):
            values[name] = values[name] / np.linalg.norm(values[name])
    return type(first)(**{name: tuple(map(float, v)) for name, v in values.items()})  # type: ignore[arg-type]


def to_json(stain: Stain) -> dict[str, Any]:
    """A JSON object that `read_stain` turns back into an equal one."""
    return {"method": stain.method, **{k: list(v) for k, v in asdict(stain).items()}}


def read_stain(data: Any) -> Stain | None:
    """The checkpoint's entry; None where there is none.

    Raises CheckpointError when it is not one of ours, or a value is absurd.
    """
    if data is None:
        return None
    kind = METHODS.get(str(data.get("method"))) if isinstance(data, dict) else None
    if kind is None:
        raise CheckpointError(
            "it wants a stain normalisation that is unknown here; update napari-dkan"
        )
    names = {f.name for f in fields(kind)}
    values = {k: tuple(v) for k, v in data.items() if k in names and isinstance(v, list)}
    if set(values) != names:
        raise CheckpointError("its stain normalisation is incomplete")
    return kind(**values)


def _opponents(pixels: Pixels) -> Numbers:
    """RGB (..., 3) -> luminance, yellow to blue, red to green (..., 3)."""
    return np.asarray(np.log10(_cones(pixels)) @ _TO_OPPONENTS.T)


def _cones(pixels: Pixels) -> NDArray[np.float32]:
    """RGB (..., 3) -> light that the eye's three cones catch (..., 3), 0..1."""
    light = (pixels.astype(np.float32) + 1) / 256
    return np.asarray(light @ _TO_CONES.T.astype(np.float32))


def _vector(values: Numbers) -> Vector:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def _require(stain: Stain) -> None:
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
