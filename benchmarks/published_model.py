"""A network of the published size, and a checkpoint around it that needs no file."""

from __future__ import annotations

import torch

from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint
from napari_dkan.model.checkpoint.checkpoint_header import PatchGeometry
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.model.encoders.timm_encoder import TimmEncoder
from napari_dkan.model.network.dkan_config import DKANConfig
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.model.network.network_config import StackConfig

PX = 224  # of a patch and of an encoder's tile
PITCH_UM = 200.0


def published_config(dim: int, genes: int) -> DKANConfig:
    """Depths as published for HER2+; hidden layers are 4 times as wide, as 16.8 GFLOP say."""

    def stack(depth: int) -> StackConfig:
        return StackConfig(depth=depth, heads=8, ratio=4.0, dropout=0.0)

    return DKANConfig(
        genes=genes,
        dim=dim,
        text_dim=dim,
        expression_dropout=0.0,
        fusion=stack(1),
        global_=stack(5),
        neighbor=stack(4),
        image=stack(4),
        expression=stack(3),
        text=stack(3),
    )


def published_checkpoint(encoder: str, dim: int, genes: int, mpp: float) -> Checkpoint:
    """Random weights, always the same ones, in a network and in a timm encoder of that width.

    A patch is 224 px of a slide of mpp um/px, so that none needs resampling.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2021)
        network = DKAN(published_config(dim, genes), torch.randn(genes, dim)).eval()
        spec = EncoderSpec(encoder, "random", dimension=dim, px=PX)
        tensors = TimmEncoder.create_untrained(spec).tensors()
    return Checkpoint(
        network=network,
        panel=Panel(tuple(Gene(f"GENE{i}", "", "") for i in range(genes))),
        label_scale=LabelScale(),
        patch=PatchGeometry(PX, PX * mpp),
        spot_pitch_um=PITCH_UM,
        spot_diameter_um=100.0,
        encoder=spec,
        card={"title": f"random weights, d = {dim}, {encoder}"},
        encoder_tensors=tensors,
    )
