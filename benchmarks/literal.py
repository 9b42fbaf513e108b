"""The published way from a slide to numbers, taken literally: what our own is compared with.

As in docs/method.md, sections 1 and 3, with none of the short cuts of section 6. Of every tile 26
patches are read and encoded, each on its own: the tile's own for the slide's features, and its
25 neighbours. A batch passes the slide's features through the global encoder and the gene text
through its own, copies the text for every tile, and lets every gene attend to the tile's single
token with queries, keys and a softmax. All genes are decoded; nothing is kept for the next batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from published_step import dual_path, feed_forward, queries_of, self_attention
from torch import Tensor

from napari_dkan.inference.patch_features.patch_geometry import PatchReader
from napari_dkan.model.encoders.encoder_spec import IMAGENET_MEAN, IMAGENET_STD, TileEncoder
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.model.network.ensemble import Ensemble, get_linear_path, list_members


class LiteralPath:
    """A network of ours, run as published, on the tiles of one slide.

    side : of a patch, level-0 px. px : of the target's patch, as the network sees it. The members
    of an ensemble are run one by one.

    Queries and keys of the dual path, which ours does not keep, are drawn at random: they have
    no effect, but cost what they cost.
    """

    def __init__(
        self,
        slide: PatchReader,
        network: DKAN | Ensemble,
        encoder: TileEncoder,
        side: float,
        px: int,
    ) -> None:
        self.slide, self.network, self.encoder, self.side, self.px = (
            slide, network, encoder, side, px,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2021)
            self._queries = [queries_of(member.image) for member in list_members(network)]

    @torch.no_grad()
    def own_feature(self, x: float, y: float) -> Tensor:
        """(d,) of the patch at (x, y), level-0 px: what a tile gives to the slide's features."""
        return self._encoded([(x, y)])[0]

    @torch.no_grad()
    def predict(
        self, xy: NDArray[np.float64], rows: Tensor, features: Tensor, positions: Tensor
    ) -> Tensor:
        """(B, G) on the label scale, of one batch.

        xy (B, 2) centres in level-0 px; rows (B,) which of the slide's M spots these are;
        features (M, d) and positions (M, 2) of these, as `own_feature` and the array give them.
        """
        net = self.network
        places = [self._around(x, y) for x, y in xy]
        near = torch.stack([self._encoded(p) for p in places])
        mask = torch.tensor([[self._on_slide(*p) for p in around] for around in places])
        mask[:, mask.shape[1] // 2] = True  # the tile's own
        patches = torch.stack([self._pixels(x, y, self.px) for x, y in xy])
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

        own = net.encode_global(features, positions)[rows]
        near = net.standardize_by_slide(near, features)
        z = net.fuse((patches.float() / 255 - mean) / std, near, mask, own).z

        members, linear = list_members(net), get_linear_path(net)
        each = z[:, : net.config.members_dim].chunk(len(members), dim=1)
        mean = torch.stack(
            [self._decoded(*one) for one in zip(members, self._queries, each, strict=True)]
        ).mean(dim=0)
        return mean if linear is None else linear(mean, z)

    def _decoded(self, net: DKAN, queries: torch.nn.ModuleList, z: Tensor) -> Tensor:
        """(B, G) on the label scale, of the tokens (B, d) of one network."""
        text = net.gene_features[None]
        for attention, feed in zip(net.text.attention, net.text.feed, strict=True):
            text = feed_forward(feed, self_attention(attention, text))
        text = net.text_fit(text).repeat(len(z), 1, 1)
        image = dual_path(net.image, queries, net.config.image.heads, text, z[:, None])
        return net.to_label_scale(net.head(image).squeeze(-1))

    def _around(self, x: float, y: float) -> list[tuple[float, float]]:
        """Centres of the grid x grid patches around (x, y), row-major."""
        reach = self.network.config.grid // 2
        steps = [i * self.side for i in range(-reach, reach + 1)]
        return [(x + dx, y + dy) for dy in steps for dx in steps]

    def _on_slide(self, x: float, y: float) -> bool:
        half = self.side / 2
        inside_x = x - half >= 0 and x + half <= self.slide.width
        return inside_x and y - half >= 0 and y + half <= self.slide.height

    def _encoded(self, places: list[tuple[float, float]]) -> Tensor:
        """(K, d) of patches that are read one by one."""
        tiles = [self._pixels(x, y, self.encoder.spec.px) for x, y in places]
        return self.encoder(torch.stack(tiles)).float()

    def _pixels(self, x: float, y: float, px: int) -> Tensor:
        """(3, px, px) uint8."""
        square = self.slide.read_patch(x, y, self.side, px)
        return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)
