"""Measured sections for fine-tuning: unsmoothed labels and encoded tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import SpotsError
from ...expression.label_scale import LabelScale
from ...expression.panel import Panel
from ...expression.readers.discovery import find_sections
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.encoders import STAIN_ENCODER
from ..data.frozen_features import FrozenEncoder
from ..data.measured_section import match_panel_columns
from ..data.prepared_section import EncodedSection, PreparedSection, encode_section
from ..data.section_loading import load_section
from ..train_settings import TrainSettings
from .spot_blocks import SpotRows

if TYPE_CHECKING:
    from anndata import AnnData


LabelMatrix = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingSection:
    """One section of N labelled spots.

    logged : (N, G) labels before averaging over neighbours; NaN in columns not measured.
    measured : (G,) which of the panel's genes it measures. rows : of these spots among all of
    the section, which are ``total``.
    """

    encoded: EncodedSection
    unsmoothed_labels: LabelMatrix
    is_gene_measured: NDArray[np.bool_]
    section_rows: SpotRows
    n_section_spots: int
    scale: LabelScale

    @property
    def section(self) -> PreparedSection:
        return self.encoded.section

    @property
    def name(self) -> str:
        return self.section.name

    @property
    def array_coordinates(self) -> SpotRows:
        """(N, 2) array coordinates."""
        return self.section.positions.numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.unsmoothed_labels)

    def smooth_labels(self, rows: SpotRows, among: SpotRows | None = None) -> LabelMatrix:
        """(len(rows), G) labels averaged over neighbours ``among`` these spots, all when None."""
        among = np.arange(len(self)) if among is None else among
        smooth = self.scale.smooth(self.unsmoothed_labels[among], self.array_coordinates[among])
        place = {int(row): i for i, row in enumerate(among)}
        return smooth[[place[int(r)] for r in rows]]


class TrainingSectionReader:
    """Makes lessons for one checkpoint, whose tile encoder and scale they are seen through."""

    def __init__(self, checkpoint: Checkpoint, weights: Path | None, device: torch.device) -> None:
        self._scale, self._stain = checkpoint.label_scale, checkpoint.stain
        self._encoder = checkpoint.build_tile_encoder(weights)
        self._settings = TrainSettings(
            patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
        )
        self._named = None
        if checkpoint.encoder.name != STAIN_ENCODER:
            self._named = FrozenEncoder(self._encoder.to(device), device)

    def read(self, data: AnnData, panel: Panel) -> TrainingSection:
        """Labels of the panel's genes and what is seen around every labelled spot.

        Raises SpotsError when it measures none of the panel's genes, or lies off its image.
        """
        columns = match_panel_columns(panel, data)
        measured = np.array([c is not None for c in columns])
        if not measured.any():
            raise SpotsError(
                f"{data.uns['section']} measures none of the checkpoint's {len(panel)} genes "
                f"({', '.join(panel.symbols[:3])}, ...); its genes are named like "
                f"{', '.join(map(str, data.var_names[:3]))}."
            )
        known = Panel(tuple(g for g, m in zip(panel.genes, measured, strict=True) if m))
        part = data[:, [c for c in columns if c is not None]].copy()
        part.var_names = list(known.symbols)
        unsmoothed = replace(self._scale, smoothing=1)
        section = load_section(part, known, self._settings, self._named, unsmoothed, self._stain)
        logged = np.full((len(section), len(panel)), np.nan, np.float32)
        logged[:, measured] = section.labels.numpy()
        dropped = set(section.dropped_spots)
        rows = np.flatnonzero([str(n) not in dropped for n in data.obs_names])
        encoded = encode_section(section, self._encoder)  # type: ignore[arg-type]
        return TrainingSection(encoded, logged, measured, rows, data.n_obs, self._scale)


def read_training_sections(
    reader: TrainingSectionReader,
    sections: Sequence[AnnData],
    panel: Panel,
    on_section: Callable[[str, int], None],
) -> list[TrainingSection]:
    """A lesson of each; on_section is told the name and how many came before."""
    lessons = []
    for number, data in enumerate(sections):
        on_section(str(data.uns["section"]), number)
        lessons.append(reader.read(data, panel))
    return lessons


def read_finetune_sections(
    roots: Sequence[Path], training_names: Sequence[str] | None, other_names: Sequence[str]
) -> tuple[list[AnnData], list[AnnData]]:
    """Sections that teach (all but the others when not named), and the others.

    Raises SpotsError naming what is there when a section is unknown, named twice or left without
    any that teaches.
    """
    found = {}
    for root in roots:
        for section in find_sections(root):
            if section.name in found:
                raise SpotsError(f"Section {section.name} is in the data twice; give it once.")
            found[section.name] = section
    if training_names is None:
        training_names = [name for name in found if name not in other_names]
    for name in (*training_names, *other_names):
        if name not in found:
            there = ", ".join(list(found)[:4]) + (" ..." if len(found) > 4 else "")
            raise SpotsError(f"There is no section {name}; the data holds {there}.")
    both = sorted(set(training_names) & set(other_names))
    if both:
        raise SpotsError(f"{both[0]} cannot both teach and be one of --others; name it once.")
    if not training_names:
        raise SpotsError("No section is left to teach; name fewer in --others.")
    return [found[n].read() for n in training_names], [found[n].read() for n in other_names]
