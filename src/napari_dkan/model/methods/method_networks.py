"""Networks of all methods, made from their configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..network.dkan_config import DKANConfig
from ..network.dkan_network import DKAN
from ..network.network_config import NetworkConfig
from ..network.network_interface import ExpressionNetwork
from .bg_triplex import BGTriplex
from .gene_dml import GeneDML
from .hifusion import HiFusion
from .linear import LinearNetwork
from .method_configs import (
    BGTriplexConfig,
    BleepConfig,
    GeneDMLConfig,
    HiFusionConfig,
    LinearConfig,
    MclSTExpConfig,
    StemConfig,
    TriplexConfig,
)
from .retrieval import Bleep, MclSTExp
from .stem import Stem
from .triplex import Triplex

NETWORKS: dict[type[NetworkConfig], Callable[[Any], ExpressionNetwork]] = {
    DKANConfig: lambda config: DKAN(config, torch.zeros(config.genes, config.text_dim)),
    TriplexConfig: Triplex,
    BGTriplexConfig: BGTriplex,
    LinearConfig: LinearNetwork,
    BleepConfig: Bleep,
    MclSTExpConfig: MclSTExp,
    StemConfig: Stem,
    GeneDMLConfig: GeneDML,
    HiFusionConfig: HiFusion,
}


def create_network(config: NetworkConfig) -> ExpressionNetwork:
    """Create a network with random weights, of DKAN with a gene text of zeros."""
    return NETWORKS[type(config)](config)
