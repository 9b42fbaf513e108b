"""The optimised network computes the same as the trained one."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from napari_dkan.model.network.inference_optimization import (
    fold_batch_norms,
    optimize_for_inference,
    trace_for_latency,
    trace_trunk,
)


def randomize_batch_norms(net):
    """Set batch norms as after a training; new ones change nothing."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    return net.eval()


@pytest.mark.parametrize("name", ["lcnet_035", "resnet18", "vit_tiny_patch16_224"])
def test_trunks_give_the_same_features(name):
    net = randomize_batch_norms(
        timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    )
    px = 224 if name.startswith("vit") else 64
    optimized = trace_trunk(fold_batch_norms(net, px), px)
    x = torch.randn(5, 3, px, px)
    with torch.no_grad():
        expected, actual = net.forward_features(x), optimized.forward_features(x)
    assert (expected - actual).abs().max() <= 1e-4 * expected.abs().max()
    if name != "vit_tiny_patch16_224":
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norms(net, px).modules())


def test_a_network_with_norms_before_convolutions_is_unchanged():
    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward_features(self, x):
            return self.conv(torch.relu(self.norm(x)))

    net = randomize_batch_norms(Before())
    assert fold_batch_norms(net, 8) is net


def test_the_original_network_is_unchanged(tiny_checkpoint_file):
    from napari_dkan.model import load_checkpoint

    network = load_checkpoint(tiny_checkpoint_file).network
    before = {n: t.clone() for n, t in network.state_dict().items()}
    optimized = optimize_for_inference(network, torch.device("cpu"), 56)
    assert optimized is not network and optimized.head is network.head
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_trunk_is_optimized_again_only_when_its_weights_change(tiny_checkpoint_file):
    from napari_dkan.model import load_checkpoint

    network = load_checkpoint(tiny_checkpoint_file).network
    patches = torch.randn(2, 3, 56, 56)

    def tokens():
        optimized = optimize_for_inference(network, torch.device("cpu"), 56)
        list(trace_for_latency(optimized))
        with torch.inference_mode():
            return optimized.encode_target(patches), optimized.trunk.net.net

    (first, net), (again, same) = tokens(), tokens()
    assert same is net and torch.equal(first, again)
    with torch.no_grad():
        next(network.trunk.parameters()).mul_(2)
        expected = network.encode_target(patches)
    changed, other = tokens()
    assert other is not net and not torch.allclose(changed, first)
    torch.testing.assert_close(changed, expected, atol=1e-4, rtol=1e-4)
