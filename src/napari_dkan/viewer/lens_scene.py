"""What a gene lens is held over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..inference.provenance import build_zero_shot_record
from .lens_field import TileGridCache
from .session import ViewerSlide, ViewerSession

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint


@dataclass(frozen=True, eq=False)
class LensContext:
    """Slide, checkpoint and grid; over another one nothing holds that was known."""

    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None
    tissue: BaseGeometry | None
    mpp: float
    dense: bool
    tissue_only: bool

    @classmethod
    def from_session(cls, session: ViewerSession) -> LensContext | None:
        """The session's; None as long as something is missing."""
        slide, checkpoint, panel = session.slide, session.checkpoint, session.model_gene_panel
        if slide is None or checkpoint is None or panel is None:
            return None
        if slide.pixel_size is None or slide not in session.slides or session.gene not in panel:
            return None
        settings, mpp = session.settings, slide.mpp
        grid = settings.dense, settings.tissue_only
        return cls(slide, checkpoint, session.zero_shot, slide.tissue, mpp, *grid)

    def is_same(self, other: LensContext | None) -> bool:
        return other is not None and all(
            mine is its or (isinstance(mine, float) and mine == its)
            for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    def make_grid(self) -> TileGridCache | None:
        """Its cells; None until the tissue is found."""
        if self.tissue is None:
            return None
        checkpoint, slide = self.checkpoint, self.slide.slide
        pitch_um = checkpoint.patch.um if self.dense else checkpoint.spot_pitch_um
        size = slide.width, slide.height
        return TileGridCache(size, pitch_um / self.mpp, pitch_um, self.tissue, self.tissue_only)

    def gene_column(self, gene: str) -> int:
        """Of the gene among the panel and the genes after it."""
        panel = self.checkpoint.panel
        if self._is_zero_shot(gene) and self.zero_shot is not None:
            return len(panel) + self.zero_shot.symbols.index(gene)
        return panel.row(gene)

    def kind(self, gene: str) -> str:
        """How its values come about, for names and legends."""
        return "predicted zero-shot" if self._is_zero_shot(gene) else "predicted"

    def units(self, gene: str) -> str:
        """What its values are measured in, and for a zero-shot gene what to expect of it."""
        if self.zero_shot is None or not self._is_zero_shot(gene):
            return self.checkpoint.label_scale.name
        record = build_zero_shot_record(self.checkpoint, self.zero_shot)
        return f"{record['units']}\n{record['expectation']}"

    def _is_zero_shot(self, gene: str) -> bool:
        return self.zero_shot is not None and gene in self.zero_shot.symbols
