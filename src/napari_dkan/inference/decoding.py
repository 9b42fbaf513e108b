"""From fused tokens to expression: any gene, of any tiles, whenever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .device import to_device
from .timing import StageTimer

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import DKAN, Ensemble
    from .zero_shot import ZeroShotGenes


class GeneDecoder:
    """Decodes genes of a network; columns are the panel's, then those of further genes."""

    def __init__(self, network: DKAN | Ensemble, stage_timer: StageTimer | None = None) -> None:
        self._network, self._stage_timer = network, stage_timer or StageTimer()
        self._zero_shot_tokens: tuple[ZeroShotGenes, Tensor] | None = None  # text tokens computed last

    def decode(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> NDArray[np.float32]:
        """(B, K) values of fused tokens (B, D) for the columns ``genes``, all when None.

        A gene's values do not depend on which others are asked for.
        """
        import torch

        if isinstance(tokens, np.ndarray):
            tokens = to_device(tokens, self._network.device)
        panel = self._network.config.genes
        count = panel + (0 if zero_shot is None else len(zero_shot.genes))
        wanted = np.arange(count) if genes is None else np.asarray(genes, np.int64)
        inside = wanted < panel
        out = np.empty((len(tokens), len(wanted)), np.float32)
        with self._stage_timer("decode", len(tokens)), torch.inference_mode():
            if inside.any():
                rows = torch.from_numpy(wanted[inside]).to(tokens.device)
                out[:, inside] = self._network.decode(tokens, rows).cpu().numpy()
            if zero_shot is not None and not inside.all():
                new = self._compute_text_tokens(zero_shot)[torch.from_numpy(wanted[~inside] - panel)]
                out[:, ~inside] = self._network.decode_gene_tokens(tokens, new).cpu().numpy()
        return out

    def get_gene_token(
        self, column: int, zero_shot: ZeroShotGenes | None = None
    ) -> tuple[Tensor, Tensor]:
        """Text token (1, D) of a column's gene, and what multiplies its decoded numbers."""
        import torch

        panel = self._network.config.genes
        if zero_shot is not None and column >= panel:
            token = self._compute_text_tokens(zero_shot)[column - panel, None]
            return token.clone(), torch.ones((), device=token.device)
        with torch.no_grad():
            return self._network.encode_genes()[column, None], self._network.label_std[column]

    def _compute_text_tokens(self, zero_shot: ZeroShotGenes) -> Tensor:
        """(K, D) of all further genes, computed once."""
        if self._zero_shot_tokens is None or self._zero_shot_tokens[0] is not zero_shot:
            self._zero_shot_tokens = (zero_shot, self._network.encode_new_genes(zero_shot.text_features))
        return self._zero_shot_tokens[1]
