"""Position encoding of the global encoder: a depthwise convolution over the array."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import SpotsError


class PositionEncoding(nn.Module):
    """Adds to each token a depthwise k x k convolution of the array of tokens at its cell.

    Equal to scattering the tokens on a dense grid (empty cells zero), convolving
    with padding k // 2 and gathering back, but it visits only the cells that
    exist: memory does not grow with the extent of the array, and the rows may
    come in any order. As published, the kernel's first axis runs along position
    axis 1 and its second along position axis 0.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.uniform_(self.weight, -1 / kernel, 1 / kernel)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens (N, dim), positions (N, 2) integers -> (N, dim).

        Raises SpotsError naming the first position that two rows share.
        """
        reach = self.weight.shape[-1] // 2
        # A margin of `reach` on every side keeps keys of different cells apart.
        cell = positions - positions.amin(dim=0) + reach
        width = int(cell[:, 1].max()) + reach + 1
        key = cell[:, 0] * width + cell[:, 1]
        ordered, order = key.sort()
        _raise_on_duplicates(ordered, order, positions)
        step = torch.arange(-reach, reach + 1, device=key.device)
        wanted = key[:, None] + (step * width + step[:, None]).flatten()  # kernel axis 0, then 1
        place = torch.searchsorted(ordered, wanted).clamp_(max=len(ordered) - 1)
        here = ordered[place] == wanted
        near = tokens[order[place]] * here[..., None]  # (N, k * k, dim), zero on empty cells
        convolved = torch.einsum("nkd,dk->nd", near, self.weight.flatten(1).to(near.dtype))
        return tokens + self.bias + convolved


def _raise_on_duplicates(sorted_keys: Tensor, order: Tensor, positions: Tensor) -> None:
    twice = torch.nonzero(sorted_keys[1:] == sorted_keys[:-1]).squeeze(1)
    if len(twice) == 0:
        return
    a, b = positions[order[twice[0]]].tolist()
    count = int((sorted_keys == sorted_keys[twice[0]]).sum())
    others = len(twice) - count + 1
    more = f" and {others} more rows repeat others" if others else ""
    raise SpotsError(
        f"{count} spots share the array position ({a}, {b}){more}; "
        "each spot needs a position of its own."
    )
