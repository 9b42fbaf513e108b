"""The DKAN network: from patches, neighbours, slide and gene text to expression.

Zhang et al., AAAI 2026 (arXiv 2511.17685). Shapes: B spots in a batch, M spots of a slide,
K = grid^2 neighbours, G genes, d = config.dim, d_t = config.text_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, SpotsError
from .attention_blocks import CrossTransformer, SingleKeyTransformer, Transformer
from .branch_encoders import ExpressionEncoder, GlobalEncoder, TargetTrunk
from .dkan_config import NO_TRUNK, DKANConfig
from .linear_path import NUM_SCALES, average_scales
from .network_interface import (
    ForwardOutputs,
    FusedTokens,
    SectionPrediction,
    iter_slices,
    require_shape,
)

# Gene rows decoded at once without gradients: bounds memory at any panel and batch size.
MAX_DECODE_ROWS = 8192
NUM_PRIOR_SPOTS = 10


class DKAN(SectionPrediction, nn.Module):
    """The network.

    In eval mode every result is deterministic and independent of the order of the spots.
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

    gene_features: Tensor
    label_mean: Tensor
    label_std: Tensor

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
        self.register_buffer("label_mean", torch.zeros(config.genes))
        self.register_buffer("label_std", torch.ones(config.genes))

        self.trunk = None if config.trunk == NO_TRUNK else TargetTrunk(config.trunk)
        if self.trunk is not None and self.trunk.channels != config.trunk_dim:
            raise CheckpointError(
                f"The trunk {config.trunk} gives {self.trunk.channels} channels, "
                f"not {config.trunk_dim} as the network description says."
            )
        if self.trunk is None:
            self.target = _build_feature_map(NUM_SCALES * config.feature_dim, config)
        else:
            self.target = _build_adapter(config.trunk_dim, d)
        self.adapt = (
            _build_feature_map(config.features, config) if config.features else nn.Identity()
        )
        self.neighbor = Transformer(d, int(d * config.neighbor.ratio), config.neighbor, config.grid)
        self.neighbor_norm = nn.LayerNorm(d)
        self.global_encoder = GlobalEncoder(config)
        self.fusion = CrossTransformer(d, int(d * config.fusion.ratio), config.fusion)
        self.fusion_norm = nn.LayerNorm(d)
        # As published, the text encoder's hidden width follows d, not its own width.
        self.text = Transformer(config.text_dim, int(d * config.text.ratio), config.text)
        self.text_fit = _build_adapter(config.text_dim, d)
        self.image = SingleKeyTransformer(d, int(d * config.image.ratio), config.image)
        self.expression = SingleKeyTransformer(
            d, int(d * config.expression.ratio), config.expression
        )
        self.expression_encoder = ExpressionEncoder(config.genes, d, config.expression_dropout)
        self.head = nn.Linear(d, 1)
        self.head_fused = nn.Linear(d, config.genes)
        self.head_target = nn.Linear(d, config.genes)
        self.head_neighbor = nn.Linear(d, config.genes)
        self.head_global = nn.Linear(d, config.genes)
        self._gene_token_cache: tuple[tuple[tuple[int, int], ...], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.label_mean.device

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """Standardise features (..., d) by those of the slide's spots (M, d), as `fuse` takes them.

        Another stain or scanner shifts all features of a slide together; the differences within
        the slide remain. Features are unchanged if `config.standardise` is false.
        """
        if not self.config.standardise:
            return features
        return _standardize_with_prior(features, slide_features)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """Encode every spot in the context of its slide.

        Parameters
        ----------
        slide_features
            (M, d).
        positions
            Whole array coordinates (M, 2).
        query_rows
            Rows that are returned, which is cheaper; None for all.

        Returns
        -------
        Tensor
            Global tokens (M, d), or (len(query_rows), d).

        Raises
        ------
        SpotsError
            If two spots share a position, or the shapes do not fit.
        """
        m = slide_features.shape[0]
        require_shape("slide features", slide_features, (m, self.config.feature_dim))
        require_shape("positions", positions, (m, 2))
        if m == 0:
            return slide_features.new_zeros(0, self.config.dim)
        if positions.is_floating_point():
            rounded = positions.round()
            if not torch.equal(rounded, positions):
                raise SpotsError("Spot positions must be whole array coordinates.")
            positions = rounded
        slide_features = self.standardize_by_slide(slide_features, slide_features)
        slide_tokens = self.adapt(slide_features)
        tokens: Tensor = self.global_encoder(slide_tokens, positions.long(), query_rows)
        return tokens

    def encode_target(self, patches: Tensor) -> Tensor:
        """Encode patches (B, 3, P, P), normalised by ImageNet mean and std -> (B, T, d).

        Without a trunk there are no tokens (T = 0), and `fuse_tokens` makes one of the neighbour
        features.
        """
        require_shape("patches", patches, (patches.shape[0], 3, *patches.shape[-2:]))
        if self.trunk is None:
            return patches.new_zeros(len(patches), 0, self.config.dim)
        tokens: Tensor = self.target(self.trunk(patches))
        return tokens

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Fuse the three scales of B spots.

        Parameters
        ----------
        target
            Tokens of the spots' patches (B, T, d).
        neighbor_features
            (B, K, d), row-major around the spot, from `standardize_by_slide`.
        neighbor_mask
            (B, K), 0 outside the slide.
        global_tokens
            (B, d).

        Raises
        ------
        SpotsError
            If the shapes do not fit.
        """
        b, k, d = target.shape[0], self.config.grid**2, self.config.dim
        require_shape("target tokens", target, (b, target.shape[1], d))
        require_shape("neighbour features", neighbor_features, (b, k, self.config.feature_dim))
        require_shape("neighbour mask", neighbor_mask, (b, k))
        require_shape("global tokens", global_tokens, (b, d))
        visible = neighbor_mask.bool()
        if self.trunk is None:
            target = self.target(average_scales(neighbor_features, visible))[:, None]
        neighbor_features = self.adapt(neighbor_features)
        neighbor = self.neighbor_norm(self.neighbor(neighbor_features, visible))
        query = global_tokens[:, None]
        fused = self.fusion(query, target) + self.fusion(query, neighbor, visible)
        return FusedTokens(self.fusion_norm(fused)[:, 0], target.mean(dim=1), neighbor.mean(dim=1))

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
        """Predict expression from z (B, d), on the label scale.

        A gene's value does not depend on the other genes. Genes and spots are processed in
        chunks, so memory is bounded (unless gradients are recorded).

        Parameters
        ----------
        genes
            Indices into the panel; None for all.
        gene_tokens
            Result of `encode_genes`, which is recomputed where gradients are recorded.

        Returns
        -------
        Tensor
            (B, G), or (B, len(genes)).
        """
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

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict with the four auxiliary heads: (B, G) on the label scale, by head name."""
        heads = self.apply_auxiliary_heads(fused, global_tokens)
        names = ("fused", "target", "neighbor", "global")
        return {n: self.to_label_scale(h.float()) for n, h in zip(names, heads, strict=True)}

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

    def apply_auxiliary_heads(
        self, fused: FusedTokens, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict standardized expression (B, G) with each auxiliary head."""
        return (
            self.head_fused(fused.z),
            self.head_target(fused.target_mean),
            self.head_neighbor(fused.neighbor_mean),
            self.head_global(tokens),
        )


def _standardize_with_prior(features: Tensor, slide_features: Tensor) -> Tensor:
    """Standardise with a prior of ten pseudo-spots of mean 0 and standard deviation 1.

    That is about the distribution of a tile encoder's features over the training slides. Without
    it a slide of a single spot has no spread.
    """
    count = len(slide_features) + NUM_PRIOR_SPOTS
    mean = slide_features.sum(dim=0) / count
    squares = (slide_features - mean).square().sum(dim=0) / count
    variance = squares + (1 - len(slide_features) / count)
    return (features - mean) / variance.sqrt()


def _build_feature_map(length: int, config: DKANConfig) -> nn.Module:
    """From tile features of some length to d: dropout, hidden layer, GELU, dropout, d.

    The first dropout is on the features, of which many say nearly the same.
    """
    hidden, dropout = int(config.dim * config.neighbor.ratio), config.neighbor.dropout
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(length, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, config.dim),
    )


def _build_adapter(in_features: int, out_features: int) -> nn.Module:
    return nn.Identity() if in_features == out_features else nn.Linear(in_features, out_features)
