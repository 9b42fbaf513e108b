"""Small slides in every layout, written for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def picture(height: int = 203, width: int = 317, seed: int = 0) -> Pixels:
    """A smooth random RGB image in which every place looks different."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(0, 13, (height, width, 3), dtype=np.uint8)
    return np.minimum(np.asarray(smooth), 242) + noise


def halves(pixels: Pixels, count: int) -> list[Pixels]:
    """The image and its 2 x 2 means, as a scanner writes them (odd edges dropped)."""
    levels = [pixels]
    for _ in range(count - 1):
        p = levels[-1]
        p = p[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2].astype(np.float64)
        mean = (p[0::2, 0::2] + p[1::2, 0::2] + p[0::2, 1::2] + p[1::2, 1::2]) / 4
        levels.append(np.round(mean).astype(np.uint8))
    return levels


def tiff(path: Path, pixels: NDArray[np.generic], **options: object) -> Path:
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", "metadata": None, **options})
    return path


def pyramid_tiff(path: Path, levels: list[Pixels], *, subifds: bool, ome: bool = False) -> Path:
    """A pyramid in SubIFDs, or as pages one after the other."""
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=ome) as writer:
        for index, level in enumerate(levels):
            extra: dict[str, object] = {} if ome else {"metadata": None}
            if subifds:
                extra |= {"subifds": len(levels) - 1} if index == 0 else {"subfiletype": 1}
            elif not ome and index:
                extra |= {"subfiletype": 1}
            writer.write(level, **options, **extra)
    return path


def ome_zarr(path: Path, levels: list[Pixels], *, version: str, axes: str = "yxc") -> Path:
    """An OME-Zarr image with the given order of axes; t and z have length one."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    kinds = {"y": "space", "x": "space", "z": "space", "c": "channel", "t": "time"}
    described = [
        {"name": a, "type": kinds[a], **({"unit": "micrometer"} if kinds[a] == "space" else {})}
        for a in axes
    ]
    datasets = []
    for index, level in enumerate(levels):
        data = level.transpose(["yxc".index(a) for a in axes if a in "yxc"])
        data = data.reshape([1 if a in "tz" else level.shape["yxc".index(a)] for a in axes])
        chunks = tuple(1 if a in "tzc" else 64 for a in axes)
        array = group.create_array(str(index), shape=data.shape, chunks=chunks, dtype=data.dtype)
        array[...] = data
        scale = [0.5 * 2**index if a in "yx" else 1.0 for a in axes]
        transformations = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(index), "coordinateTransformations": transformations})
    image = {"version": version, "axes": described, "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [image]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


def gray(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[:, :, :1], 3, axis=2)


def translucent(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """The picture with an opacity, and what it is on white."""
    alpha = pixels[::-1, ::-1, :1]
    opacity = alpha / 255.0
    return np.concatenate([pixels, alpha], axis=2), pixels * opacity + 255 * (1 - opacity)


def palette_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels).quantize(64)


Written = tuple[Path, NDArray[np.generic]]


def _png(mode: str) -> Callable[[Path, Pixels], Written]:
    def write(folder: Path, pixels: Pixels) -> Written:
        path = folder / f"{mode}.png"
        if mode == "RGBA":
            stored, seen = translucent(pixels)
            Image.fromarray(stored).save(path)
            return path, seen
        if mode == "16-bit":
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(path)
            return path, gray(pixels)
        image = palette_image(pixels) if mode == "P" else Image.fromarray(pixels).convert(mode)
        image.save(path)
        return path, np.asarray(image.convert("RGB"))

    return write


def _tiff(change: Callable[[Pixels], Written], **options: object) -> Callable[..., Written]:
    def write(folder: Path, pixels: Pixels) -> Written:
        stored, seen = change(pixels)  # type: ignore[misc]
        return tiff(folder / "slide.tif", stored, **options), seen  # type: ignore[arg-type]

    return write


def _same(pixels: Pixels) -> tuple[Pixels, Pixels]:
    return pixels, pixels


def _palette_tiff(folder: Path, pixels: Pixels) -> Written:
    image = palette_image(pixels)
    colours = np.zeros((256, 3), np.uint16)
    used = np.asarray(image.getpalette(), np.uint16).reshape(-1, 3)
    colours[: len(used)] = used * 257
    stored = np.asarray(image)
    options = {"photometric": "palette", "colormap": colours.T}
    return tiff(folder / "palette.tif", stored, **options), np.asarray(image.convert("RGB"))


TILES = {"tile": (64, 48), "compression": "deflate"}

# name -> writer(folder, pixels) -> (file, the RGB that must be read)
LOSSLESS: dict[str, Callable[[Path, Pixels], Written]] = {
    "png": _png("RGB"),
    "png gray": _png("L"),
    "png rgba": _png("RGBA"),
    "png palette": _png("P"),
    "png bilevel": _png("1"),
    "png 16-bit": _png("16-bit"),
    "tiff tiles": _tiff(_same, **TILES),
    "tiff strips": _tiff(_same, compression="lzw", rowsperstrip=10),
    "tiff one block": _tiff(_same),
    "tiff one block big-endian 16-bit": _tiff(
        lambda p: (p.astype(np.uint16) * 257, p), byteorder=">"
    ),
    "tiff one compressed strip": _tiff(_same, compression="deflate", rowsperstrip=100_000),
    "tiff planes": _tiff(
        lambda p: (p.transpose(2, 0, 1).copy(), p), planarconfig="separate", **TILES
    ),
    "tiff planes in one block": _tiff(
        lambda p: (p.transpose(2, 0, 1).copy(), p), planarconfig="separate"
    ),
    "tiff 16-bit": _tiff(lambda p: (p.astype(np.uint16) * 257, p), **TILES, predictor=True),
    "tiff gray": _tiff(lambda p: (p[:, :, 0], gray(p)), photometric="minisblack", **TILES),
    "tiff white is zero": _tiff(
        lambda p: (255 - p[:, :, 0], gray(p)), photometric="miniswhite", **TILES
    ),
    "tiff bilevel": _tiff(
        lambda p: (p[:, :, 0] > 128, gray((p > 128).astype(np.uint8) * 255)),
        photometric="minisblack",
    ),
    "tiff rgba": _tiff(translucent, extrasamples=["unassalpha"], **TILES),
    "tiff rgba premultiplied": _tiff(
        lambda p: (
            np.concatenate([np.minimum(p, p[::-1, :, :1]), p[::-1, :, :1]], axis=2),
            np.minimum(p, p[::-1, :, :1]).astype(int) + 255 - p[::-1, :, :1],
        ),
        extrasamples=["assocalpha"],
        **TILES,
    ),
    "tiff palette": _palette_tiff,
    "tiff cmyk": _tiff(
        lambda p: (np.concatenate([255 - p, np.zeros_like(p[:, :, :1])], axis=2), p),
        photometric="separated",
        **TILES,
    ),
    "pyramidal tiff": lambda folder, p: (
        pyramid_tiff(folder / "pyramid.tif", halves(p, 3), subifds=False),
        p,
    ),
    "ome-tiff": lambda folder, p: (
        pyramid_tiff(folder / "slide.ome.tif", halves(p, 3), subifds=True, ome=True),
        p,
    ),
    "ome-tiff channels as pages": lambda folder, p: (
        tiff(
            folder / "planes.ome.tif", p.transpose(2, 0, 1).copy(),
            photometric="minisblack", metadata={"axes": "CYX"}, tile=(64, 64),
        ),
        p,
    ),
    "ome-zarr 0.4": lambda folder, p: (
        ome_zarr(folder / "slide.zarr", halves(p, 3), version="0.4"),
        p,
    ),
    "ome-zarr 0.5 channel first": lambda folder, p: (
        ome_zarr(folder / "slide.ome.zarr", halves(p, 3), version="0.5", axes="cyx"),
        p,
    ),
    "ome-zarr 0.4 tczyx": lambda folder, p: (
        ome_zarr(folder / "five.zarr", halves(p, 2), version="0.4", axes="tczyx"),
        p,
    ),
}  # fmt: skip
