"""The target trunk: any timm backbone, read as a sequence of tokens."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..errors import CheckpointError


class TargetTrunk(nn.Module):
    """Patches (B, 3, P, P) -> tokens (B, T, channels), without pooling or classifier.

    ResNet-18 on 224 px gives 49 tokens of 512 channels. Class and register
    tokens of a vision transformer are left out. Weights are random: they come
    from the checkpoint, or from `load_pretrained` before a training.

    Raises CheckpointError when timm does not know the name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name.split(".")[0]):
            raise CheckpointError(f"timm has no architecture named {name}; update timm or rename.")
        options = {"pretrained": False, "num_classes": 0, "global_pool": ""}
        try:  # transformers otherwise accept one input size only
            self.net = timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError:
            self.net = timm.create_model(name, **options)
        self.name = name
        self.channels: int = self.net.num_features

    def load_pretrained(self, weights: Path | None = None) -> None:
        """Start from published weights, or from those of a local file, before a training.

        Raises EncoderError saying what to do when they cannot be had.
        """
        from .encoders.timm_net import create_network, resolve_timm_model, find_published_weights

        what = resolve_timm_model(self.name)
        file = weights or find_published_weights(what)
        self.net.load_state_dict(create_network(what, file, global_pool="").state_dict())

    def forward(self, patches: Tensor) -> Tensor:
        maps = self.net.forward_features(patches)
        if maps.ndim == 3:
            return maps[:, getattr(self.net, "num_prefix_tokens", 0) :]
        if maps.shape[1] == self.channels:
            maps = maps.permute(0, 2, 3, 1)
        return maps.flatten(1, 2)
