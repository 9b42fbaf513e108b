"""Why here: how the prediction at a clicked spot changes when part of what it rests on is covered.

Covering (occlusion; Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2) asks the network itself:
a block of the patch is painted in the patch's mean colour, or a neighbour tile is replaced by the
mean tile of its slide, and what the chosen gene loses by it is what that part had given. The
network meets the patch three times - as target tokens, in the middle of its neighbours and in its
place on the slide - and a covered block is covered in all three. docs/why.md: how it was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTile
from ..spatial.spots import Spots
from .batch import Batches
from .context import Surroundings
from .device import autocast, to_device
from .job import Update
from .reading import readers
from .target import Kind, Target

if TYPE_CHECKING:
    from torch import Tensor

    from .engine import Predictor
    from .zero_shot import ZeroShotGenes

BLOCKS = 7  # across a patch: 22 um each of the published 154 um, two or three cells

Pixels = NDArray[np.uint8]
Paint = Callable[[Pixels], Pixels]  # what a covered block shows, for a patch


@dataclass(frozen=True)
class Given:
    """What the network is given of one spot.

    pixels (P, P, 3) as the trunk takes them, tile (px, px, 3) as the encoder does; near (K, d)
    features of the patches around, its own in the middle; mask (K,) False off the slide; seen :
    its slide, of which others (M - 1, d) and cells (M, 2), its own place last, are what it sees.
    """

    pixels: Pixels
    tile: Pixels
    near: Tensor
    mask: Tensor
    seen: Surroundings
    others: Tensor
    cells: NDArray[np.int64]

    @property
    def mean(self) -> Tensor:
        """(d,) feature of the slide's mean tile."""
        return self.seen.features.mean(dim=0)


@dataclass(frozen=True)
class Coverings:
    """Fused tokens (., D) of a spot as it is and with parts covered; any gene is decoded later.

    blocks (n * n, D) : a block of the patch covered, but not in its place on the slide; moved
    (n * n, d) : what that does to the patch's feature, from which follows the rest. tiles (K, D) :
    a neighbour covered. patch, around (1, D) : the whole patch, all its neighbours.
    """

    given: Given
    target: Tensor
    base: Tensor
    blocks: Tensor
    moved: Tensor
    tiles: Tensor
    patch: Tensor
    around: Tensor


@dataclass(frozen=True)
class Why:
    """What parts give to one gene at one spot: its value less its value with the part covered.

    In the units of value. blocks (n, n) of the patch; tiles (grid, grid), NaN in the middle and
    off the slide; patch, around : covered as a whole.
    """

    value: float
    blocks: NDArray[np.float32]
    tiles: NDArray[np.float32]
    patch: float
    around: float


def given_at(predictor: Predictor, x: float, y: float) -> Generator[Update, None, Given]:
    """What a click at (x, y), level-0 px, gives the network; quick where it was clicked before.

    Raises DkanError as a click does (the slide gone, or damaged under that place).
    """
    xy = np.array([[x, y]])
    target, row = Target(Kind.POINTS, Spots(xy)), np.arange(1)
    context, features = predictor.context, predictor.features
    column, line = context.groups(target)[0].tolist()
    with readers(predictor.squares, predictor.side, predictor.stages) as pool:
        seen = yield from context.of(target, row, (column, line), pool)
        batch = Batches(predictor, target).ask(row, (column, line), pool)
        own = batch.patches.pixels()
        features.learn(batch.tiles.part(batch.tiles.keys[batch.new]), lasting=False)
        tiles = own if predictor.checkpoint.patch.px == features.px else None
        if tiles is None:
            middle = batch.around[:, batch.around.shape[1] // 2]
            tiles = pool.ask(middle, features.px).pixels()
    if own.damaged.any() or tiles.damaged.any():
        raise DamagedTile(
            f"The slide {predictor.slide.label} is damaged under that click; click elsewhere, "
            "or export the slide again."
        )
    others, cells = context.around_point(xy[0], seen)
    near, _ = features.at(batch.around[0])
    mask = to_device(batch.mask[0], predictor.device)
    return Given(own.tiles[0], tiles.tiles[0], near, mask, seen, others, cells)


def mean_colour(pixels: Pixels) -> Pixels:
    """(3,) of pixels (P, P, 3)."""
    return np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)


def covered(pixels: Pixels, keep: NDArray[np.bool_], paint: Paint = mean_colour) -> Pixels:
    """Copies (B, P, P, 3) of pixels (P, P, 3), painted over where keep (B, n, n) is False."""
    index = np.arange(len(pixels)) * keep.shape[1] // len(pixels)
    return np.where(keep[:, index][:, :, index, None], pixels, paint(pixels))


def fused(
    predictor: Predictor, given: Given, keep: NDArray[np.bool_], paint: Paint = mean_colour
) -> Tensor:
    """Fused tokens (B, D) of a spot of whose patch only some blocks, keep (B, n, n), are seen.

    The whole network is asked afresh for each: exact, and slow because of the slide.
    """
    import torch

    with torch.no_grad():
        own, target = _seen(predictor, given, keep, paint)
        near = given.near.repeat(len(keep), 1, 1)
        near[:, near.shape[1] // 2] = own
        places = torch.cat([place_on_slide(predictor, given, feature) for feature in own])
        return joined(predictor, given, target, near, places)


def cover(predictor: Predictor, given: Given, blocks: int = BLOCKS) -> Coverings:
    """Cover each block of the patch and each neighbour, in turn."""
    import torch

    tiles, count = len(given.near), blocks * blocks
    middle = tiles // 2
    keep = np.ones((count + 2, count), bool)  # one block less each, then no block, then all
    keep[np.arange(count), np.arange(count)] = False
    keep[count] = False
    with torch.no_grad():
        own, target = _seen(predictor, given, keep.reshape(-1, blocks, blocks))
        place = place_on_slide(predictor, given, given.near[middle])
        near = given.near.repeat(len(keep), 1, 1)
        near[:, middle] = own
        whole = joined(predictor, given, target, near, place)
        bare = place_on_slide(predictor, given, own[count])
        without = given.near.repeat(tiles + 1, 1, 1)  # one neighbour less each, then all
        without[torch.arange(tiles), torch.arange(tiles)] = given.mean
        without[tiles] = given.mean
        without[tiles, middle] = given.near[middle]
        alone = joined(predictor, given, target[-1:], without, place)
        patch = joined(predictor, given, target[count, None], near[count, None], bare)
    return Coverings(
        given,
        target=target[-1:],
        base=whole[-1:],
        blocks=whole[:count],
        moved=own[:count] - own[-1],
        tiles=alone[:tiles],
        patch=patch,
        around=alone[tiles:],
    )


def why(
    predictor: Predictor,
    coverings: Coverings,
    column: int,
    zero_shot: ZeroShotGenes | None = None,
) -> Why:
    """What each part gives to a gene; column : of the panel, then of the zero-shot genes.

    What a block gives through its place on the slide is taken from the gradient there, or the
    whole slide would have to be looked at once for every block.
    """
    import torch

    c, mask = coverings, coverings.given.mask.cpu().numpy()
    tokens = torch.cat([c.base, c.patch, c.around, c.tiles, c.blocks])
    values = predictor.decode(tokens, [column], zero_shot)[:, 0]
    value, patch, around = values[:3].tolist()
    tiles, blocks = np.split(value - values[3:], [len(mask)])
    tiles[~mask] = tiles[len(mask) // 2] = np.nan
    slope = _slope(predictor, coverings, *predictor.decoder.gene_token(column, zero_shot))
    blocks -= (c.moved @ slope).cpu().numpy()
    return Why(value, _square(blocks), _square(tiles), value - patch, value - around)


def _slope(predictor: Predictor, c: Coverings, token: Tensor, spread: Tensor) -> Tensor:
    """(d,) how a gene's value changes with the patch's feature in its place on the slide."""
    import torch

    given = c.given
    with torch.enable_grad():
        own = given.near[len(given.near) // 2].clone().requires_grad_()
        place = place_on_slide(predictor, given, own)
        z = joined(predictor, given, c.target, given.near[None], place)
        value = predictor.network.decode_tokens(z, token)[0, 0]
        slope: Tensor = torch.autograd.grad(value, own)[0]
    return slope * spread


def _seen(
    predictor: Predictor, given: Given, keep: NDArray[np.bool_], paint: Paint = mean_colour
) -> tuple[Tensor, Tensor]:
    """Features (B, d) and target tokens (B, T, D) of the patch with some of its blocks."""
    # What is made in inference mode cannot become part of a graph; a copy can.
    own = predictor.features.encode(covered(given.tile, keep, paint)).clone()
    with autocast(predictor.device):
        patches = predictor.normalised(covered(given.pixels, keep, paint))
        return own, predictor.network.target_tokens(patches).float()


def place_on_slide(predictor: Predictor, given: Given, own: Tensor) -> Tensor:
    """(1, D) global token of the spot, were its patch's feature own (d,)."""
    import torch

    cells = torch.as_tensor(given.cells, device=own.device)
    last = torch.tensor([len(cells) - 1], device=own.device)
    features = torch.cat([given.others, own[None]])
    return predictor.network.global_tokens(features, cells, last)


def joined(
    predictor: Predictor,
    given: Given,
    target: Tensor,
    near: Tensor,
    place: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Fused tokens (B, D) of target (B, T, D), raw near (B, K, d), place (B, D) and mask (B, K);
    a single one of any serves all."""
    network = predictor.network
    near = network.on_slide(near, given.seen.features)
    parts = (target, near, given.mask[None] if mask is None else mask, place)
    count = max(map(len, parts))
    with autocast(predictor.device):
        return network.join(*(p.expand(count, *p.shape[1:]) for p in parts)).z.float()


def _square(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    side = round(len(numbers) ** 0.5)
    return numbers.reshape(side, side)
