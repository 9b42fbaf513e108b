"""Shape of the network of each method, from training settings.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from ..errors import SpotsError
from ..model.methods.method_configs import (
    CONFIGS,
    BGTriplexConfig,
    BleepConfig,
    GeneDMLConfig,
    HiFusionConfig,
    LinearConfig,
    MclSTExpConfig,
    StemConfig,
    TriplexConfig,
)
from ..model.network.dkan_config import NO_TRUNK, DKANConfig
from ..model.network.network_config import NetworkConfig, StackConfig
from .train_settings import TrainSettings


def make_network_config(settings: TrainSettings, genes: int) -> NetworkConfig:
    """Make the configuration of a network of the settings' method for this number of genes.

    Raises
    ------
    SpotsError
        For an unknown method.
    """
    config_type = CONFIGS.get(settings.method)
    if config_type is None:
        raise SpotsError(
            f"There is no method {settings.method!r:.40}; choose {', '.join(CONFIGS)}."
        )
    return _SHAPES[config_type](settings, genes)


def _make_dkan_config(settings: TrainSettings, genes: int) -> DKANConfig:
    s = settings
    if s.network is not None:
        return replace(s.network, genes=genes, dim=s.dim, text_dim=s.text_dim)

    def stack(depth: int, dropout: float = s.dropout) -> StackConfig:
        return StackConfig(depth=depth, heads=4, ratio=2.0, dropout=dropout)

    return DKANConfig(
        genes=genes,
        dim=s.dim,
        text_dim=s.text_dim,
        trunk=s.trunk,
        trunk_dim=s.dim if s.trunk == NO_TRUNK else s.trunk_dim,
        features=s.features,
        standardise=s.standardise,
        expression_dropout=s.dropout,
        fusion=stack(1),
        global_=stack(2),
        neighbor=stack(1),
        image=stack(2, s.gene_dropout),
        expression=stack(1, s.gene_dropout),
        text=stack(1, s.gene_dropout),
    )


def _share_with_dkan(config_type: type[NetworkConfig]) -> Callable[..., Any]:
    """Make configurations whose fields of the same name are those of DKAN."""

    def make(settings: TrainSettings, genes: int, **others: Any) -> Any:
        dkan = vars(_make_dkan_config(settings, genes))
        shared = {f.name: dkan[f.name] for f in fields(config_type) if f.name in dkan}
        return config_type(**shared, **others)

    return make


def _make_hifusion_config(settings: TrainSettings, genes: int) -> HiFusionConfig:
    region = _make_dkan_config(settings, genes).neighbor
    config: HiFusionConfig = _share_with_dkan(HiFusionConfig)(settings, genes, region=region)
    # as in the published code
    return config if settings.network is None else replace(config, finest=7)


def _make_linear_config(settings: TrainSettings, genes: int) -> LinearConfig:
    dim = settings.features or settings.dim
    return LinearConfig(genes=genes, dim=dim, standardise=settings.standardise)


def _list_own_tile_fields(settings: TrainSettings, genes: int) -> dict[str, Any]:
    """List the fields of a network that sees the own tile only."""
    names = ("dim", "features", "standardise", "dropout")
    return {"genes": genes} | {name: getattr(settings, name) for name in names}


def _make_bleep_config(settings: TrainSettings, genes: int) -> BleepConfig:
    return BleepConfig(**_list_own_tile_fields(settings, genes))


def _make_mclstexp_config(settings: TrainSettings, genes: int) -> MclSTExpConfig:
    spot = StackConfig(depth=2, dropout=settings.dropout)
    return MclSTExpConfig(**_list_own_tile_fields(settings, genes), spot=spot)


def _make_stem_config(settings: TrainSettings, genes: int) -> StemConfig:
    config = StemConfig(**_list_own_tile_fields(settings, genes))
    if settings.network is None:
        return config
    heads = settings.network.global_.heads
    published = StackConfig(depth=12, heads=heads, ratio=4.0, dropout=0.0)
    return replace(config, tokens=0, samples=20, steps=50, dropout=0.0, blocks=published)


_SHAPES: dict[type[NetworkConfig], Callable[[TrainSettings, int], NetworkConfig]] = {
    DKANConfig: _make_dkan_config,
    TriplexConfig: _share_with_dkan(TriplexConfig),
    BGTriplexConfig: _share_with_dkan(BGTriplexConfig),
    GeneDMLConfig: _share_with_dkan(GeneDMLConfig),
    HiFusionConfig: _make_hifusion_config,
    LinearConfig: _make_linear_config,
    BleepConfig: _make_bleep_config,
    MclSTExpConfig: _make_mclstexp_config,
    StemConfig: _make_stem_config,
}
