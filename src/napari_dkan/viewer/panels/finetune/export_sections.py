"""Export measured sections as files for the fine-tuning process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import OutputError, SpotsError

if TYPE_CHECKING:
    from anndata import AnnData

    from ...session.slide_layer import ViewerSlide
    from ..quality.data.loaded_section import LoadedSection


_UNS_KEYS = ("patient", "spot_pitch_um", "spot_diameter_um")


@dataclass(frozen=True)
class SectionSnapshot:
    """A section as it was when the run began; name : what the process calls it."""

    name: str
    section: LoadedSection
    data: AnnData
    slide: ViewerSlide


def snapshot_sections(
    sections: Sequence[LoadedSection], existing: Sequence[SectionSnapshot] = ()
) -> tuple[SectionSnapshot, ...]:
    """The sections with names of their own that can be file names.

    taken : sections whose names are gone already.

    Raises SpotsError when one lies on no slide, or its slide has no pixel size.
    """
    found: list[SectionSnapshot] = []
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
        plain = re.sub(r"[^\w.-]+", "-", section.name).strip("-.") or "section"
        names = {h.name for h in (*existing, *found)}
        numbered = (f"{plain}-{i}" for i in range(2, len(names) + 3))
        name = plain if plain not in names else next(n for n in numbered if n not in names)
        found.append(SectionSnapshot(name, section, section.data, slide))
    return tuple(found)


def write_sections(sections: Sequence[SectionSnapshot], folder: Path) -> None:
    """One ``NAME.h5ad`` each in a new folder, as `expression.h5ad` reads it.

    Raises OutputError.
    """
    import anndata

    folder.mkdir()
    for h in sections:
        data = h.data
        plain = anndata.AnnData(
            data.X,
            obs=data.obs[[c for c in ("array_row", "array_col") if c in data.obs]],
            var=data.var[[c for c in ("gene_ids",) if c in data.var]],
            obsm={"spatial": data.obsm["spatial"]},
            uns={key: data.uns[key] for key in _UNS_KEYS if key in data.uns}
            | {
                "section": h.name,
                "image": str(Path(h.slide.slide.location).resolve()),
                "mpp": h.slide.mpp,
            },
        )
        file = folder / f"{h.name}.h5ad"
        try:
            plain.write_h5ad(file)
        except OSError as error:
            reason = error.strerror or str(error).splitlines()[0]
            raise OutputError(
                f"{h.section.name} could not be handed to the fine-tuning process ({reason}); "
                f"free some space in {folder.parent}."
            ) from error
