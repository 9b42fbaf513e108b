"""Export measured sections as files for the fine-tuning process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import OutputError, SpotsError
from ....slide.pixel_size import MANUAL_ORIGIN

if TYPE_CHECKING:
    from anndata import AnnData

    from ...session.slide_layer import ViewerSlide
    from ..quality.data.loaded_section import LoadedSection


_UNS_KEYS = ("patient", "spot_pitch_um", "spot_diameter_um")


@dataclass(frozen=True)
class SectionSnapshot:
    """A section as it was when the run started; ``name`` is unique and a valid file name."""

    name: str
    section: LoadedSection
    data: AnnData
    slide: ViewerSlide


def snapshot_sections(
    sections: Sequence[LoadedSection], existing: Sequence[SectionSnapshot] = ()
) -> tuple[SectionSnapshot, ...]:
    """Snapshot sections for a run.

    Parameters
    ----------
    sections
    existing
        Snapshots whose names are in use.

    Raises
    ------
    SpotsError
        A section has no slide, or its slide has no file or no pixel size.
    """
    snapshots: list[SectionSnapshot] = []
    for section in sections:
        slide = section.slide
        if slide is None:
            raise SpotsError(f"Open the slide of {section.name} first, or untick it.")
        if slide.slide.path is None:
            raise SpotsError(
                f"{slide.slide.label} is no file on this computer, which fine-tuning needs; save "
                "it (File > Save Selected Layers) and open that file, or untick it."
            )
        if slide.pixel_size is None:
            raise SpotsError(
                f"{slide.slide.label} does not state its pixel size; enter it in the panel "
                "DKAN: predict."
            )
        name = base = re.sub(r"[^\w.-]+", "-", section.name).strip("-.") or "section"
        names = {s.name for s in (*existing, *snapshots)}
        number = 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        snapshots.append(SectionSnapshot(name, section, section.data, slide))
    return tuple(snapshots)


def write_sections(sections: Sequence[SectionSnapshot], folder: Path) -> None:
    """Write one ``NAME.h5ad`` per section to a new folder.

    Raises
    ------
    OutputError
    """
    import anndata

    folder.mkdir()
    for section in sections:
        data = section.data
        exported = anndata.AnnData(
            data.X,
            obs=data.obs[[c for c in ("array_row", "array_col") if c in data.obs]],
            var=data.var[[c for c in ("gene_ids",) if c in data.var]],
            obsm={"spatial": data.obsm["spatial"]},
            uns={key: data.uns[key] for key in _UNS_KEYS if key in data.uns}
            | {
                "section": section.name,
                "image": str(Path(section.slide.slide.location).resolve()),
                "mpp": section.slide.mpp,
                "mpp_origin": MANUAL_ORIGIN,  # the window has checked it against the spot array
            },
        )
        file = folder / f"{section.name}.h5ad"
        try:
            exported.write_h5ad(file)
        except OSError as error:
            reason = error.strerror or str(error).splitlines()[0]
            raise OutputError(
                f"{section.section.name} could not be handed to the fine-tuning process "
                f"({reason}); free some space in {folder.parent}."
            ) from error
