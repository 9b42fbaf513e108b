"""The DKAN network: from patches, neighbours, slide and gene text to expression.

Zhang et al., AAAI 2026 (arXiv 2511.17685). Shapes: B spots in a batch, M spots of a slide,
K = grid^2 neighbours, G genes, d = config.dim, d_t = config.text_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import CheckpointError
from .attention_blocks import SingleKeyTransformer, Transformer
from .branch_encoders import ExpressionEncoder
from .dkan_config import DKANConfig
from .multi_scale_network import MultiScaleNetwork, build_adapter
from .network_interface import ForwardOutputs, iter_slices, require_shape

# Gene rows decoded at once without gradients: bounds memory at any panel and batch size.
MAX_DECODE_ROWS = 8192


class DKAN(MultiScaleNetwork):
    """The network.

    `predict` runs the whole network. `encode_global`, `encode_target`, `fuse_tokens`,
    `encode_genes`, `decode` and `predict_auxiliary` are its parts, with which the tokens of a
    slide and of the genes are computed once. `forward` is a training pass.

    Attribute names of modules, parameters and buffers are tensor names in checkpoint files.

    Parameters
    ----------
    gene_features
        Text features (G, d_t), stored as a buffer.

    Attributes
    ----------
    label_mean, label_std
        Buffers (G,), from the standardised outputs to the label scale.

    Raises
    ------
    CheckpointError
        If the gene features do not fit the config.
    """

    config: DKANConfig
    gene_features: Tensor

    def __init__(self, config: DKANConfig, gene_features: Tensor) -> None:
        super().__init__()
        expected = (config.genes, config.text_dim)
        if tuple(gene_features.shape) != expected:
            raise CheckpointError(
                f"The gene features have shape {tuple(gene_features.shape)}; "
                f"the network needs {expected}."
            )
        self.config = config
        d = config.dim
        self.register_buffer("gene_features", gene_features.detach().clone().float())
        self._register_label_scale()
        self._build_branches()
        # As published, the text encoder's hidden width follows d, not its own width.
        self.text = Transformer(config.text_dim, int(d * config.text.ratio), config.text)
        self.text_fit = build_adapter(config.text_dim, d)
        self.image = SingleKeyTransformer(d, int(d * config.image.ratio), config.image)
        self.expression = SingleKeyTransformer(
            d, int(d * config.expression.ratio), config.expression
        )
        self.expression_encoder = ExpressionEncoder(config.genes, d, config.expression_dropout)
        self.head = nn.Linear(d, 1)
        self._build_heads()
        self._gene_token_cache: tuple[tuple[tuple[int, int], ...], Tensor] | None = None

    def encode_genes(self) -> Tensor:
        """Encode the panel's text features to tokens (G, d).

        In eval mode without gradients they are computed once for a set of weights.
        """
        if self.training or torch.is_grad_enabled():
            return self._encode_text()
        # In-place updates increment a tensor's version and moves change its address, so the key
        # changes with the weights.
        inputs = (self.gene_features, *self.text.parameters(), *self.text_fit.parameters())
        key = tuple((t.data_ptr(), t._version) for t in inputs)
        if self._gene_token_cache is None or self._gene_token_cache[0] != key:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(self.device.type, enabled=False),
            ):
                self._gene_token_cache = (key, self._encode_text())
        return self._gene_token_cache[1]

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`."""
        rows = torch.arange(self.config.genes) if genes is None else genes
        rows = rows.to(self.device)
        tokens = self.encode_genes() if gene_tokens is None else gene_tokens
        out = self.decode_gene_tokens(z, tokens[rows])
        return out * self.label_std[rows] + self.label_mean[rows]

    def encode_new_genes(self, features: Tensor) -> Tensor:
        """Encode text features (K, d_t) of genes outside the panel to tokens (K, d).

        Each gene is appended to the panel alone, so it changes neither the panel's tokens nor
        those of the other new genes. Raises SpotsError if the features have another width.
        """
        require_shape("gene features", features, (len(features), self.config.text_dim))
        features = features.to(self.device)
        panel = self.gene_features[None]
        rows = [features.new_empty(0, self.config.dim)]
        for s in iter_slices(len(features), max(1, MAX_DECODE_ROWS // (self.config.genes + 1))):
            new = features[s, None]
            encoded = self.text(torch.cat([panel.expand(len(new), -1, -1), new], dim=1))
            rows.append(self.text_fit(encoded[:, -1]))
        return torch.cat(rows)

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Predict standardised expression (B, K) from z (B, d) and gene tokens (K, d)."""
        out = z.new_empty(len(z), len(tokens), dtype=torch.float32)
        spots = min(len(z), MAX_DECODE_ROWS)
        step = max(1, MAX_DECODE_ROWS // max(1, spots))
        for s in iter_slices(len(z), spots):
            for g in iter_slices(len(tokens), step):
                out[s, g] = self.head(self.image(tokens[None, g], z[s])).squeeze(-1).float()
        return out

    def forward(
        self,
        patches: Tensor,
        slide_features: Tensor,
        positions: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        rows: Tensor | None = None,
        expression: Tensor | None = None,
    ) -> ForwardOutputs:
        """Run a training pass over B spots of one section.

        Parameters
        ----------
        patches, neighbor_features, neighbor_mask
            Of the batch.
        slide_features, positions
            Of the whole section, (M, d) and (M, 2).
        rows
            Indices (B,) of the batch's spots; None for all, in order.
        expression
            (B, G), standardised or on the label scale, for the expression path; None to leave that
            out.

        Returns
        -------
        ForwardOutputs
            With standardised predictions.
        """
        tokens = self.encode_global(slide_features, positions)
        if rows is not None:
            tokens = tokens[rows]
        neighbor_features = self.standardize_by_slide(neighbor_features, slide_features)
        fused = self.fuse(patches, neighbor_features, neighbor_mask, tokens)
        genes = self.encode_genes()[None]
        image_tokens = self.image(genes, fused.z)
        expression_tokens = None
        if expression is not None:
            expression_tokens = self.expression(genes, self.expression_encoder(expression))
        return ForwardOutputs(
            self.head(image_tokens).squeeze(-1),
            *self.apply_auxiliary_heads(fused, tokens),
            image_tokens,
            expression_tokens,
        )

    def train(self, mode: bool = True) -> DKAN:
        self._gene_token_cache = None
        return super().train(mode)

    def _encode_text(self) -> Tensor:
        tokens: Tensor = self.text_fit(self.text(self.gene_features[None])[0])
        return tokens
