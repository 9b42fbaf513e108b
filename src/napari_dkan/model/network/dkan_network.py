"""The DKAN network: from patches, neighbours, slide and gene text to expression.

Zhang et al., AAAI 2026 (arXiv 2511.17685), as specified in dkan-method.md, section 3. Shapes: B
spots in a batch, M spots of a slide, K = grid^2 neighbours, G genes, d = config.dim,
d_t = config.text_dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, SpotsError
from .attention_blocks import CrossTransformer, SingleKeyTransformer, Transformer
from .branch_encoders import ExpressionEncoder, GlobalEncoder, TargetTrunk
from .dkan_config import DKANConfig
from .network_interface import OUTPUT_NAMES, ForwardOutputs, FusedTokens

if TYPE_CHECKING:
    from .ensemble import Ensemble


# Gene rows decoded at once without gradients: bounds memory at any panel and batch size.
MAX_DECODE_ROWS = 8192
NUM_PRIOR_SPOTS = 10


class DKAN(nn.Module):
    """The network. gene_features (G, d_t) are kept as a buffer.

    In eval mode every result is deterministic and independent of the order of the
    spots. `predict` is the whole network; `global_tokens`, `fuse`, `gene_tokens`,
    `decode` and `auxiliary` are its pieces, for an engine that computes slide and
    gene tokens once and decodes the asked-for gene first; `forward` is a training
    pass. The buffers label_mean and label_std (G,) take the heads' standardised
    numbers to the label scale.

    Raises CheckpointError when the gene features do not fit the config.
    """

    gene_features: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __init__(self, config: DKANConfig, gene_features: Tensor) -> None:
        super().__init__()
        wanted = (config.genes, config.text_dim)
        if tuple(gene_features.shape) != wanted:
            raise CheckpointError(
                f"The gene features have shape {tuple(gene_features.shape)}; "
                f"the network needs {wanted}."
            )
        self.config = config
        d = config.dim
        self.register_buffer("gene_features", gene_features.detach().clone().float())
        self.register_buffer("label_mean", torch.zeros(config.genes))
        self.register_buffer("label_std", torch.ones(config.genes))

        self.trunk = TargetTrunk(config.trunk)
        if self.trunk.channels != config.trunk_dim:
            raise CheckpointError(
                f"The trunk {config.trunk} gives {self.trunk.channels} channels, "
                f"not {config.trunk_dim} as the network description says."
            )
        self.target = _build_adapter(config.trunk_dim, d)
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

    # --- the pieces -----------------------------------------------------------------

    def standardize_by_slide(self, features: Tensor, slide_features: Tensor) -> Tensor:
        """Features (..., d) relative to those of their slide's spots (M, d), as `fuse` takes them.

        Another stain or scanner moves all features of a slide together; what is left are the
        differences within the slide. Unchanged where the network was not trained so.
        """
        if not self.config.standardise:
            return features
        return _standardize_with_prior(features, slide_features)

    def encode_global(
        self, slide_features: Tensor, positions: Tensor, query_rows: Tensor | None = None
    ) -> Tensor:
        """Every spot in the light of its whole slide: (M, d), integers (M, 2) -> (M, d).

        only : rows that are wanted, which is cheaper; all when None.

        Raises SpotsError when two spots share a position, naming it, or the shapes
        do not fit.
        """
        m = slide_features.shape[0]
        _require_shape("slide features", slide_features, (m, self.config.dim))
        _require_shape("positions", positions, (m, 2))
        if m == 0:
            return slide_features.new_zeros(0, self.config.dim)
        if positions.is_floating_point():
            rounded = positions.round()
            if not torch.equal(rounded, positions):
                raise SpotsError("Spot positions must be whole array coordinates.")
            positions = rounded
        slide_features = self.standardize_by_slide(slide_features, slide_features)
        return self.global_encoder(slide_features, positions.long(), query_rows)

    def encode_target(self, patches: Tensor) -> Tensor:
        """What lies in B patches (B, 3, P, P), normalised by ImageNet mean and std: (B, T, d)."""
        _require_shape("patches", patches, (patches.shape[0], 3, *patches.shape[-2:]))
        return self.target(self.trunk(patches))

    def fuse(
        self,
        patches: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Join the three scales of B spots: `join` of the patches' `target_tokens`."""
        target = self.encode_target(patches)
        return self.fuse_tokens(target, neighbor_features, neighbor_mask, global_tokens)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> FusedTokens:
        """Join the three scales of B spots.

        target (B, T, d) tokens of their patches, neighbor_features (B, K, d) row-major around
        the spot and through `on_slide`, neighbor_mask (B, K) with 0 outside the slide,
        global_tokens (B, d) of the same spots. Raises SpotsError when the shapes do not fit.
        """
        b, k, d = target.shape[0], self.config.grid**2, self.config.dim
        _require_shape("target tokens", target, (b, target.shape[1], d))
        _require_shape("neighbour features", neighbor_features, (b, k, d))
        _require_shape("neighbour mask", neighbor_mask, (b, k))
        _require_shape("global tokens", global_tokens, (b, d))
        visible = neighbor_mask.bool()
        neighbor = self.neighbor_norm(self.neighbor(neighbor_features, visible))
        query = global_tokens[:, None]
        joined = self.fusion(query, target) + self.fusion(query, neighbor, visible)
        return FusedTokens(self.fusion_norm(joined)[:, 0], target.mean(dim=1), neighbor.mean(dim=1))

    def encode_genes(self) -> Tensor:
        """Text tokens (G, d): computed once per set of weights in eval without gradients."""
        if self.training or torch.is_grad_enabled():
            return self._encode_text()
        # In-place updates raise a tensor's version and moves change its address, so
        # the key tells whenever the weights are no longer those of the cached tokens.
        held = (self.gene_features, *self.text.parameters(), *self.text_fit.parameters())
        key = tuple((t.data_ptr(), t._version) for t in held)
        if self._gene_token_cache is None or self._gene_token_cache[0] != key:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(self.device.type, enabled=False),
            ):
                self._gene_token_cache = (key, self._encode_text())
        return self._gene_token_cache[1]

    def decode(self, z: Tensor, genes: Tensor | None = None) -> Tensor:
        """Final prediction of z (B, d) on the label scale, for all genes or some.

        genes : long indices into the panel; -> (B, G) or (B, len(genes)). A gene's
        value does not depend on which others are asked for. Works through genes
        and spots in chunks, so memory is bounded (unless gradients are recorded).
        """
        rows = torch.arange(self.config.genes) if genes is None else genes
        rows = rows.to(self.device)
        out = self.decode_gene_tokens(z, self.encode_genes()[rows])
        return out * self.label_std[rows] + self.label_mean[rows]

    def encode_new_genes(self, features: Tensor) -> Tensor:
        """Text tokens (K, d) of genes outside the panel, from their features (K, d_t).

        Each gene joins the panel's in the text transformer on its own, so neither the panel's
        tokens nor those of the other new genes change with it. Raises SpotsError when the
        features have another width.
        """
        _require_shape("gene features", features, (len(features), self.config.text_dim))
        features = features.to(self.device)
        panel = self.gene_features[None]
        rows = [features.new_empty(0, self.config.dim)]
        for s in _iter_slices(len(features), max(1, MAX_DECODE_ROWS // (self.config.genes + 1))):
            new = features[s, None]
            joined = self.text(torch.cat([panel.expand(len(new), -1, -1), new], dim=1))
            rows.append(self.text_fit(joined[:, -1]))
        return torch.cat(rows)

    def decode_gene_tokens(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Standardised prediction (B, K) of z (B, d) for genes given by their tokens (K, d).

        Works through genes and spots in chunks like `decode`.
        """
        out = z.new_empty(len(z), len(tokens), dtype=torch.float32)
        spots = min(len(z), MAX_DECODE_ROWS)
        step = max(1, MAX_DECODE_ROWS // max(1, spots))
        for s in _iter_slices(len(z), spots):
            for g in _iter_slices(len(tokens), step):
                out[s, g] = self.head(self.image(tokens[None, g], z[s])).squeeze(-1).float()
        return out

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """The four auxiliary predictions (B, G) on the label scale, by head name."""
        heads = self._apply_auxiliary_heads(fused, global_tokens)
        names = ("fused", "target", "neighbor", "global")
        return {n: self.to_label_scale(h.float()) for n, h in zip(names, heads, strict=True)}

    def to_label_scale(self, standardised: Tensor) -> Tensor:
        """(B, G) as the heads give it -> labels: times label_std plus label_mean."""
        return standardised * self.label_std + self.label_mean

    def from_label_scale(self, labels: Tensor) -> Tensor:
        """(B, G) labels -> standardised, what the heads are compared with in training."""
        return (labels - self.label_mean) / self.label_std

    # --- the whole ------------------------------------------------------------------

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
        """A training pass over B spots of one section.

        slide_features (M, d) and positions (M, 2) cover the whole section; rows (B,)
        says which of them the batch is (all, in order, when None). expression
        (B, G), standardised or on the label scale as the trainer chooses, opens the
        expression path. Predictions come back standardised.
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
            *self._apply_auxiliary_heads(fused, tokens),
            image_tokens,
            expression_tokens,
        )

    def predict(
        self,
        patches: Tensor,
        slide_features: Tensor,
        positions: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        batch_size: int = 64,
    ) -> dict[str, Tensor]:
        """Predict all N spots of a slide, in eval mode whatever mode the network is in.

        patches (N, 3, P, P), slide_features (N, d), positions (N, 2) integers,
        neighbor_features (N, K, d), neighbor_mask (N, K) -> five (N, G) tensors on the
        label scale named final, fused, target, neighbor and global.
        Raises SpotsError when the shapes do not fit or a position occurs twice.
        """
        return predict_section(
            self,
            patches,
            slide_features,
            positions,
            neighbor_features,
            neighbor_mask,
            batch_size,
        )

    def train(self, mode: bool = True) -> DKAN:
        self._gene_token_cache = None
        return super().train(mode)

    def _encode_text(self) -> Tensor:
        return self.text_fit(self.text(self.gene_features[None])[0])

    def _apply_auxiliary_heads(
        self, fused: FusedTokens, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (
            self.head_fused(fused.z),
            self.head_target(fused.target_mean),
            self.head_neighbor(fused.neighbor_mean),
            self.head_global(tokens),
        )


@torch.no_grad()
def predict_section(
    network: DKAN | Ensemble,
    patches: Tensor,
    slide_features: Tensor,
    positions: Tensor,
    neighbor_features: Tensor,
    neighbor_mask: Tensor,
    batch_size: int,
) -> dict[str, Tensor]:
    """See `DKAN.predict`."""
    mode, device = network.training, network.device
    network.eval()
    try:
        slide_features = slide_features.to(device)
        tokens = network.encode_global(slide_features, positions.to(device))
        each = {
            "patches": patches,
            "neighbour features": neighbor_features,
            "neighbour mask": neighbor_mask,
        }
        for what, tensor in each.items():
            _require_shape(what, tensor, (len(tokens), *tensor.shape[1:]))
        parts: dict[str, list[Tensor]] = {n: [] for n in OUTPUT_NAMES}
        for s in _iter_slices(len(tokens), batch_size):
            context = tokens[s]
            patch, near, mask = (t[s].to(device) for t in each.values())
            fused = network.fuse(
                patch, network.standardize_by_slide(near, slide_features), mask, context
            )
            parts["final"].append(network.decode(fused.z))
            for name, value in network.predict_auxiliary(fused, context).items():
                parts[name].append(value)
    finally:
        network.train(mode)
    empty = torch.zeros(0, network.config.genes, device=device)
    return {name: torch.cat(p) if p else empty for name, p in parts.items()}


def _standardize_with_prior(features: Tensor, slide_features: Tensor) -> Tensor:
    """As if ten more spots of mean 0 and deviation 1 lay on the slide: a single one has no spread.

    That is what a tile encoder's features have over the training slides, roughly.
    """
    known = len(slide_features) / (len(slide_features) + NUM_PRIOR_SPOTS)
    mean = slide_features.sum(dim=0) / (len(slide_features) + NUM_PRIOR_SPOTS)
    spread = (slide_features - mean).square().sum(dim=0) / (
        len(slide_features) + NUM_PRIOR_SPOTS
    ) + (1 - known)
    return (features - mean) / spread.sqrt()


def _build_adapter(in_features: int, out_features: int) -> nn.Module:
    return nn.Identity() if in_features == out_features else nn.Linear(in_features, out_features)


def _iter_slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, max(1, size)):
        yield slice(start, min(start + size, length))


def _require_shape(label: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise SpotsError(
            f"The {label} have shape {tuple(tensor.shape)}; the network needs {shape}."
        )
