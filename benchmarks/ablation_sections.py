"""The sections of the ablations, read once and kept in a folder between variants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dkan.atomic_write import atomic_write
from napari_dkan.expression.label_scale import array_coords_from_section, labels_from_section
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.patch_features.patch_geometry import PatchReader
from napari_dkan.slide import open_slide
from napari_dkan.training.data.augmentation import AugmentedView, StainTransform
from napari_dkan.training.data.prepared_section import (
    NEIGHBOR_GRID,
    PreparedSection,
    prepare_section,
)
from napari_dkan.training.data.section_loading import DEFAULT_LABEL_SCALE, read_section_data
from napari_dkan.training.train_settings import Augmentation, TrainSettings

if TYPE_CHECKING:
    from anndata import AnnData

NAMES = ("C2", "C3", "C4", "C5")
SIDE = 56
CHANGES = 3  # changes of stain that each section is tested under
CHANGE_SEED = 90_000  # far from the seed of the training views
# Haematoxylin and eosin of reference (Macenko et al. 2009), and the mean amount of each.
STAINS = np.array([[0.563, 0.720, 0.406], [0.216, 0.801, 0.558]])
AMOUNTS = (0.9, 0.5)


# The settings of the bundled checkpoint of 2026-11-21, which these ablations are of.
EARLIER_VIEWS = Augmentation(views=12)
EARLIER = TrainSettings(
    trunk="lcnet_035", trunk_dim=176, depth_residual=False, augmentation=EARLIER_VIEWS
)


class Reading(StrEnum):
    """How slides are read. same_stain : views are moved but keep the stain. normalised : every
    slide is brought to the same glass and mean stain amounts first."""

    plain = "plain"
    same_stain = "same_stain"
    normalised = "normalised"


@dataclass(frozen=True)
class Looks:
    """A section with its views for training, and as a test under changed stain."""

    plain: PreparedSection
    changed: tuple[PreparedSection, ...]

    @property
    def all(self) -> tuple[PreparedSection, ...]:
        return (self.plain, *self.changed)


@dataclass(frozen=True)
class Recoloured:
    """A slide as `Squares`, in other colours."""

    slide: PatchReader
    change: StainTransform

    @property
    def width(self) -> int:
        return self.slide.width

    @property
    def height(self) -> int:
        return self.slide.height

    def read_patch(self, x: float, y: float, side: float, px: int) -> NDArray[np.uint8]:
        return self.change(self.slide.read_patch(x, y, side, px))


@dataclass
class Bench:
    """What every variant starts from.

    data : folder of the her2st sections with ``genes``. gene_text : a file of
    `napari-dkan genes build`. cache : folder for what takes long. epochs : of every network.
    """

    data: Path
    panel: Panel
    gene_text: Path
    cache: Path
    epochs: int
    _looks: dict[Reading, dict[str, Looks]] = field(default_factory=dict)

    @property
    def panel_file(self) -> Path:
        return self.data / "genes" / "panel_her2st_250.txt"

    def counts(self) -> list[AnnData]:
        return read_section_data(self.data, NAMES)

    def looks(self, reading: Reading = Reading.plain) -> dict[str, Looks]:
        """The sections by name."""
        if reading not in self._looks:
            self._looks[reading] = {name: self._kept(name, reading) for name in NAMES}
        return self._looks[reading]

    def windows(self, name: str) -> NDArray[np.uint8]:
        """(N, 280, 280, 3) the 5x5 tiles around each labelled spot as one picture."""
        path = self.cache / f"windows-{name}.npy"
        if not path.is_file():
            (data,) = read_section_data(self.data, [name])
            xy, side = spots_of(data, self.panel)
            with open_slide(data.uns["image"]) as slide:
                seen = [
                    slide.read_patch(x, y, side * NEIGHBOR_GRID, SIDE * NEIGHBOR_GRID)
                    for x, y in xy
                ]
            with atomic_write(path) as temporary:
                np.save(temporary, np.stack(seen))
        return np.load(path)

    def _kept(self, name: str, reading: Reading) -> Looks:
        path = self.cache / f"{reading}-{name}.pt"
        if not path.is_file():
            (data,) = read_section_data(self.data, [name])
            with atomic_write(path) as temporary:
                torch.save(self._read(data, reading), temporary)
        with torch.serialization.safe_globals([Looks, PreparedSection, AugmentedView]):
            return torch.load(path, weights_only=True)

    def _read(self, data: AnnData, reading: Reading) -> Looks:
        name, settings, views = str(data.uns["section"]), EARLIER, EARLIER_VIEWS
        if reading is Reading.same_stain:
            views = replace(views, amount=0.0, colour=0.0, background=0.0)

        def section(
            slide: PatchReader, augmentation: Augmentation | None = None
        ) -> PreparedSection:
            if reading is Reading.normalised:
                slide = Recoloured(slide, normaliser(slide, *spots_of(data, self.panel)))
            prepared = prepare_section(
                data,
                slide,
                self.panel,
                DEFAULT_LABEL_SCALE,
                settings.patch_um,
                settings.patch_px,
                augmentation=augmentation,
            )
            return replace(prepared, counts=None)  # the cache holds tensors only

        with open_slide(data.uns["image"]) as slide:
            changed = (Recoloured(slide, change) for change in changes(name))
            return Looks(section(slide, views), tuple(section(c) for c in changed))


def changes(name: str) -> list[StainTransform]:
    """The changes of stain a section is tested under, of the spread of the training views."""
    seeds = ([CHANGE_SEED, NAMES.index(name), i] for i in range(CHANGES))
    return [StainTransform.sample(EARLIER_VIEWS, np.random.default_rng(seed)) for seed in seeds]


def normaliser(slide: PatchReader, xy: NDArray[np.float64], side: float) -> StainTransform:
    """Takes the glass off, and brings the colours and mean amounts of both stains to a reference.

    The slide's stains are those of Macenko et al. (2009): the extreme directions in the plane in
    which the optical densities of the spots' own tiles mostly lie.
    """
    pixels = np.stack([slide.read_patch(x, y, side, SIDE) for x, y in xy]).reshape(-1, 3)
    density = -np.log((pixels + 1.0) / 256)
    glass = np.percentile(density, 1, axis=0)
    tissue = density - glass
    tissue = tissue[tissue.mean(axis=1) > 0.15]
    plane = np.linalg.svd(tissue.T @ tissue)[0][:, :2]
    plane *= np.sign(plane[:, 0].sum())
    along = tissue @ plane
    angles = np.percentile(np.arctan2(along[:, 1], along[:, 0]), (1, 99))
    stains = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    stains = stains[np.argsort(-stains[:, 0])]  # haematoxylin takes more of the red
    unmixing = np.linalg.inv(_completed(stains))
    scale = np.array(AMOUNTS) / (tissue @ unmixing).mean(axis=0)[:2]
    matrix = unmixing @ np.diag([*scale, 1.0]) @ _completed(STAINS)
    return StainTransform(matrix, -glass @ matrix)


def _completed(stains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two stains (2, 3) and what neither of them absorbs, unit rows (3, 3)."""
    rows = np.stack([*stains, np.cross(stains[0], stains[1])])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def spots_of(data: AnnData, panel: Panel) -> tuple[NDArray[np.float64], float]:
    """Centres (N, 2) of the labelled spots and the side of a tile, level-0 px."""
    rows = labels_from_section(data, panel, DEFAULT_LABEL_SCALE).rows
    xy = np.asarray(data.obsm["spatial"], dtype=float)[rows]
    return xy, EARLIER.patch_um / float(data.uns["mpp"])


def further_genes(
    sections: list[AnnData], panel: Panel, wanted: int
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """The most counted genes outside the panel that every section measures, and their labels.

    The labels (N, wanted) by section are on the panel's scale: per 10,000 counts of the panel,
    log10, smoothed over 3x3 spots. Counts of all sections choose the genes, as they chose the
    panel.
    """
    common = set.intersection(*(set(map(str, s.var_names)) for s in sections)) - set(panel.symbols)
    names = sorted(common)
    total = sum(np.asarray(s[:, names].X.sum(axis=0)).ravel() for s in sections)
    genes = [names[i] for i in np.argsort(-np.asarray(total), kind="stable")[:wanted]]
    labels = {}
    for s in sections:
        rows = labels_from_section(s, panel, DEFAULT_LABEL_SCALE).rows
        of_panel = np.asarray(s[rows, list(panel.symbols)].X.sum(axis=1), dtype=float)
        counts = s[rows, genes].X.toarray() / of_panel.reshape(-1, 1)
        values = np.log10(1 + counts * DEFAULT_LABEL_SCALE.target_sum).astype(np.float32)
        labels[str(s.uns["section"])] = DEFAULT_LABEL_SCALE.smooth(
            values, array_coords_from_section(s)[rows]
        )
    return genes, labels
