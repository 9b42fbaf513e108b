"""Decode expression of panel genes and zero-shot genes from fused tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .device import to_device
from .device_errors import classify_device_failure
from .prediction_progress import StageTimer

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import ExpressionNetwork
    from .zero_shot_genes import ZeroShotGenes


class GeneDecoder:
    """Decode genes with a network; columns are those of the panel, then zero-shot genes.

    Parameters
    ----------
    fallback : GeneDecoder, optional
        Decodes on the CPU when the network's device fails: the genes of a map can be changed
        although nothing more can be predicted.
    """

    def __init__(
        self,
        network: ExpressionNetwork,
        stage_timer: StageTimer | None = None,
        fallback: GeneDecoder | None = None,
    ) -> None:
        self._network, self._stage_timer = network, stage_timer or StageTimer()
        self._fallback = fallback
        self._cached_text_tokens: tuple[ZeroShotGenes, Tensor] | None = None

    def decode(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> NDArray[np.float32]:
        """Decode expression values; a gene's values do not depend on the other genes.

        Parameters
        ----------
        tokens : Tensor or ndarray
            Fused tokens (B, D).
        genes : sequence of int, optional
            K columns; all when None.
        zero_shot : ZeroShotGenes, optional
            Genes whose columns follow those of the panel.

        Returns
        -------
        ndarray
            (B, K) values on the label scale, of zero-shot genes in standard deviations from
            their own mean.
        """
        return self._decode_or_fall_back(tokens, genes, zero_shot, False)[0]

    def decode_with_spread(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None = None,
        zero_shot: ZeroShotGenes | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Decode as `decode`, with the spread (B, K) of `ExpressionNetwork.decode_with_spread`.

        That of a zero-shot gene is NaN, and the whole is None where the network has no spread.
        """
        return self._decode_or_fall_back(tokens, genes, zero_shot, self._network.has_spread)

    def _decode_or_fall_back(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None,
        zero_shot: ZeroShotGenes | None,
        with_spread: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        try:
            return self._decode(tokens, genes, zero_shot, with_spread)
        except (RuntimeError, MemoryError) as error:
            if self._fallback is None or classify_device_failure(error) is None:
                raise
        on_cpu = tokens if isinstance(tokens, np.ndarray) else tokens.cpu().numpy()
        return self._fallback._decode(on_cpu, genes, zero_shot, with_spread)

    def _decode(
        self,
        tokens: Tensor | NDArray[np.float32],
        genes: Sequence[int] | None,
        zero_shot: ZeroShotGenes | None,
        with_spread: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        import torch

        if isinstance(tokens, np.ndarray):
            tokens = to_device(tokens, self._network.device)
        panel_size = self._network.config.genes
        count = panel_size + (0 if zero_shot is None else len(zero_shot.genes))
        columns = np.arange(count) if genes is None else np.asarray(genes, np.int64)
        in_panel = columns < panel_size
        values = np.empty((len(tokens), len(columns)), np.float32)
        spread = np.full_like(values, np.nan) if with_spread else None
        with self._stage_timer("decode", len(tokens)), torch.inference_mode():
            if in_panel.any():
                rows = torch.from_numpy(columns[in_panel]).to(tokens.device)
                if spread is None:
                    decoded = self._network.decode(tokens, rows)
                else:
                    decoded, own = self._network.decode_with_spread(tokens, rows)
                    if own is not None:
                        spread[:, in_panel] = own.cpu().numpy()
                values[:, in_panel] = decoded.cpu().numpy()
            if zero_shot is not None and not in_panel.all():
                rows = torch.from_numpy(columns[~in_panel] - panel_size)
                gene_tokens = self._compute_text_tokens(zero_shot)[rows]
                decoded = self._network.decode_gene_tokens(tokens, gene_tokens)
                values[:, ~in_panel] = decoded.cpu().numpy()
        return values, spread

    def decode_for_gradient(
        self, tokens: Tensor, column: int, zero_shot: ZeroShotGenes | None = None
    ) -> Tensor:
        """Decode one column (B,) of tokens that require a gradient; values as from `decode`."""
        import torch

        panel_size = self._network.config.genes
        if zero_shot is not None and column >= panel_size:
            token = self._compute_text_tokens(zero_shot)[column - panel_size, None]
            return self._network.decode_gene_tokens(tokens, token.clone())[:, 0]
        with torch.no_grad():
            gene_tokens = self._network.encode_genes()
        rows = torch.tensor([column], device=tokens.device)
        return self._network.decode(tokens, rows, gene_tokens)[:, 0]

    def _compute_text_tokens(self, zero_shot: ZeroShotGenes) -> Tensor:
        """(K, D) of all zero-shot genes; the last result is cached."""
        if self._cached_text_tokens is None or self._cached_text_tokens[0] is not zero_shot:
            tokens = self._network.encode_new_genes(zero_shot.text_features)
            self._cached_text_tokens = (zero_shot, tokens)
        return self._cached_text_tokens[1]
