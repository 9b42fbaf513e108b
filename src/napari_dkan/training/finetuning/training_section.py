"""Measured sections for fine-tuning: unsmoothed labels and encoded tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...expression.label_scale import LabelScale, PanelCounts
from ...expression.panel import Panel
from ...expression.readers.discovery import find_sections
from ...inference.section_choices import FROM_FILES, SectionChoices
from ...model.checkpoint.checkpoint_file import Checkpoint
from ..data.measured_section import note_measured_genes, require_panel_genes, select_panel_genes
from ..data.prepared_section import EncodedSection, PreparedSection
from ..data.section_loading import CheckpointSectionReader

if TYPE_CHECKING:
    from anndata import AnnData


LabelMatrix = NDArray[np.float32]
SpotRows = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSection:
    """One section of N labelled spots.

    Attributes
    ----------
    encoded
        The section with its tile features.
    unsmoothed_labels
        (N, G) labels before averaging over neighbours; NaN in columns that are not measured.
    is_gene_measured
        (G,) which genes of the panel the section measures.
    section_rows
        (N,) rows of these spots among all `n_section_spots` spots of the section.
    """

    encoded: EncodedSection
    unsmoothed_labels: LabelMatrix
    is_gene_measured: NDArray[np.bool_]
    section_rows: SpotRows
    n_section_spots: int
    scale: LabelScale

    @property
    def section(self) -> PreparedSection:
        """The prepared section."""
        return self.encoded.section

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.section.name

    @property
    def array_coordinates(self) -> NDArray[np.int64]:
        """(N, 2) array coordinates."""
        return self.section.positions.numpy().astype(np.int64)

    @property
    def counts(self) -> PanelCounts | None:
        """Raw counts of the measured genes, in the order of the panel."""
        counts = self.section.counts
        return None if counts is None else PanelCounts(counts.values, counts.array, self.scale)

    def __len__(self) -> int:
        return len(self.unsmoothed_labels)

    def smooth_labels(self, rows: SpotRows, among: SpotRows | None = None) -> LabelMatrix:
        """Average labels over neighbours.

        Parameters
        ----------
        rows
            Spots whose labels are returned.
        among
            Spots that enter the averages, `rows` among them; None for all.

        Returns
        -------
        (len(rows), G) labels.
        """
        among = np.arange(len(self)) if among is None else among
        smooth = self.scale.smooth(self.unsmoothed_labels[among], self.array_coordinates[among])
        return smooth[_positions(rows, among)]

    def smooth_depth(self, rows: SpotRows, among: SpotRows | None = None) -> NDArray[np.float64]:
        """Average the depth over neighbours, like the labels: (len(rows),).

        Zero where the counts are not known: what is beside depth is everything then.
        """
        among = np.arange(len(self)) if among is None else among
        counts = self.counts
        if counts is None or not len(among):
            return np.zeros(len(rows))
        return counts.take(among).depth[_positions(rows, among)]


def _positions(rows: SpotRows, among: SpotRows) -> list[int]:
    position = {int(row): i for i, row in enumerate(among)}
    return [position[int(r)] for r in rows]


class TrainingSectionReader:
    """Reader of fine-tuning sections with the inputs of a checkpoint.

    A frozen tile encoder runs on `device`; `weights` are its local weights. For `few_genes` see
    `require_panel_genes`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: Path | None = None,
        few_genes: bool = False,
        device: str = "cpu",
    ) -> None:
        self._few_genes = few_genes
        self._scale = checkpoint.label_scale
        self._reader = CheckpointSectionReader(checkpoint, weights, device)

    def read(self, data: AnnData, panel: Panel) -> TrainingSection:
        """Read labels of the panel's genes and the network's inputs at every labelled spot.

        Raises
        ------
        SpotsError
            When the section measures no or few genes of the panel, or spots are off its image.
        """
        selected, measured_panel, is_measured = select_panel_genes(data, panel)
        require_panel_genes(data, panel, len(measured_panel), self._few_genes)
        note_measured_genes(selected, len(measured_panel), len(panel))
        encoded = self._reader.read(selected, measured_panel, replace(self._scale, smoothing=1))
        section = encoded.section
        labels = np.full((len(section), len(panel)), np.nan, np.float32)
        labels[:, is_measured] = section.labels.numpy()
        dropped = set(section.dropped_spots)
        rows = np.flatnonzero([str(n) not in dropped for n in data.obs_names])
        return TrainingSection(encoded, labels, is_measured, rows, data.n_obs, self._scale)


def read_training_sections(
    reader: TrainingSectionReader,
    sections: Sequence[AnnData],
    panel: Panel,
    on_section: Callable[[str, int], None],
) -> list[TrainingSection]:
    """Read sections; on_section gets the name of each and the number of those before it."""
    training_sections = []
    for number, data in enumerate(sections):
        on_section(str(data.uns["section"]), number)
        training_sections.append(reader.read(data, panel))
    return training_sections


def read_finetune_sections(
    roots: Sequence[Path],
    training_names: Sequence[str] | None,
    other_names: Sequence[str],
    choices: SectionChoices = FROM_FILES,
) -> tuple[list[AnnData], list[AnnData]]:
    """Read the training sections and the others by name.

    Parameters
    ----------
    training_names
        Names of the training sections; None for all but the others.
    choices
        See `section_loading.read_section_data`.

    Raises
    ------
    SpotsError
        When a section is unknown or named twice, or no training section is left.
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
            known = ", ".join(list(found)[:4]) + (" ..." if len(found) > 4 else "")
            raise SpotsError(f"There is no section {name}; the data holds {known}.")
    both = sorted(set(training_names) & set(other_names))
    if both:
        raise SpotsError(f"{both[0]} cannot be trained on and be one of --others; name it once.")
    if not training_names:
        raise SpotsError("No section is left to train on; name fewer in --others.")
    choices.check_names([*training_names, *other_names])

    def read(names: Sequence[str]) -> list[AnnData]:
        return [choices.enter(found[name].read()) for name in names]

    return read(training_names), read(other_names)
