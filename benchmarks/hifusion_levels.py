"""What the levels of HiFusion know, and by how much its prediction follows the pixels.

    python benchmarks/bundled_checkpoint.py read --data DATA --weights lite0.safetensors
    python benchmarks/hifusion_levels.py --data DATA --gene-text genes.safetensors

One network for each test section, of 25 epochs on the depth residuals of the others, with the
weight of the alignment loss as published and without it. The pixels that are exchanged are those
of another spot; the tile features stay.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from bundled_checkpoint import NAMES, add_input_options, load_inputs
from torch import Tensor

from napari_dkan.model.methods.hifusion import HiFusion
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.data.section_batches import make_section_batch
from napari_dkan.training.depth_metrics import depth_partial_pcc
from napari_dkan.training.fit import method_modules
from napari_dkan.training.fit.depth_residuals import remove_depth
from napari_dkan.training.fit.fit_model import fit_network
from napari_dkan.training.fit.losses import alignment_loss
from napari_dkan.training.train import TrainingInputs

EPOCHS = 25


@torch.no_grad()
def measure(inputs: TrainingInputs, test: str) -> tuple[list[float], float]:
    """Depth-partial PCC of the prediction and of each level, and the effect of other pixels.

    The effect is the mean absolute change over the standard deviation of a gene over the spots.
    """
    training = [s for s in inputs.sections if s.name != test]
    (section,) = (s for s in inputs.sections if s.name == test)
    settings = replace(inputs.settings, method="hifusion", members=1, epochs=EPOCHS)
    encoder = fit_section_encoder(training, settings.dim, settings.patch_um)
    with torch.enable_grad():
        encoded = [encode_section(s, encoder) for s in remove_depth(training)]
        network = fit_network(encoded, inputs.gene_text, settings).network
    assert isinstance(network, HiFusion) and section.counts is not None
    labels, depth = section.labels.numpy(), section.counts.depth
    batch = make_section_batch(encode_section(section, encoder))
    neighbors = network.standardize_by_slide(batch["neighbor_features"], batch["slide_features"])
    unused = torch.zeros(len(labels), network.config.dim)

    def score(standardised: Tensor) -> float:
        values = network.to_label_scale(standardised).numpy()
        return float(np.nanmean(depth_partial_pcc(values, labels, depth)))

    fused, exchanged = (
        network.fuse_tokens(
            network.encode_target(pixels), neighbors, batch["neighbor_mask"], unused
        )
        for pixels in (batch["patches"], batch["patches"].flip(0))
    )
    predicted, other = network.head(fused.z), network.head(exchanged.z)
    effect = (other - predicted).abs().mean() / predicted.std(dim=0).mean()
    levels = [score(network.level_head(level)) for level in fused.levels.unbind(dim=1)]
    return [score(predicted), *levels], float(effect)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_input_options(parser)
    inputs = load_inputs(parser.parse_args())
    print("| alignment | section | prediction | whole | 2x2 | 4x4 | effect of other pixels |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for weight in (1, 0):
        with patch.object(
            method_modules, "alignment_loss", lambda levels, w=weight: w * alignment_loss(levels)
        ):
            for name in NAMES:
                scores, effect = measure(inputs, name)
                shown = " | ".join(f"{score:.3f}" for score in scores)
                print(f"| {weight} | {name} | {shown} | {effect:.3f} |", flush=True)


if __name__ == "__main__":
    main()
