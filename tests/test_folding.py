"""The network as prediction takes it gives the numbers of the one that was trained."""

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


def noisy(net):
    """Batch norms as after a training, not as fresh ones, which change nothing."""
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
    net = noisy(timm.create_model(name, pretrained=False, num_classes=0, global_pool=""))
    px = 224 if name.startswith("vit") else 64
    made = trace_trunk(fold_batch_norms(net, px), px)
    x = torch.randn(5, 3, px, px)
    with torch.no_grad():
        wanted, found = net.forward_features(x), made.forward_features(x)
    assert (wanted - found).abs().max() <= 1e-4 * wanted.abs().max()
    if name != "vit_tiny_patch16_224":
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norms(net, px).modules())


def test_a_net_whose_norms_come_before_its_convolutions_is_left_alone():
    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward_features(self, x):
            return self.conv(torch.relu(self.norm(x)))

    net = noisy(Before())
    assert fold_batch_norms(net, 8) is net


def test_the_given_network_keeps_its_own_trunk(tiny_checkpoint_file):
    from napari_dkan.model import load_checkpoint

    network = load_checkpoint(tiny_checkpoint_file).network
    before = {n: t.clone() for n, t in network.state_dict().items()}
    made = optimize_for_inference(network, torch.device("cpu"), 56)
    assert made is not network and made.head is network.head
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_trunk_is_made_ready_once_and_anew_when_its_weights_change(tiny_checkpoint_file):
    from napari_dkan.model import load_checkpoint

    network = load_checkpoint(tiny_checkpoint_file).network
    patches = torch.randn(2, 3, 56, 56)

    def tokens():
        made = optimize_for_inference(network, torch.device("cpu"), 56)
        list(trace_for_latency(made))
        with torch.inference_mode():
            return made.encode_target(patches), made.trunk.net.net

    (first, net), (again, same) = tokens(), tokens()
    assert same is net and torch.equal(first, again)
    with torch.no_grad():
        next(network.trunk.parameters()).mul_(2)
        wanted = network.encode_target(patches)
    changed, other = tokens()
    assert other is not net and not torch.allclose(changed, first)
    torch.testing.assert_close(changed, wanted, atol=1e-4, rtol=1e-4)
