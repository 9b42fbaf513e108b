"""Each reader with a tiny file of its kind, written here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, tried

NAME = "readers"
SIDE = 256
Pixels = NDArray[np.uint8]


def readers() -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="napari-dkan-doctor-") as folder:
        for name, check in CHECKS.items():
            yield tried(NAME, name, partial(check, Path(folder)))


def picture() -> Pixels:
    """A smooth picture (256, 256, 3) in which every place looks different."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8)


def _opened(path: Path, close: int = 0) -> str:
    """Raises ValueError when other pixels come out than went in."""
    from ..slide import open_slide

    with open_slide(path) as slide:
        _same(slide.read_region(100, 50, 64, 32), close)
        size = "no pixel size" if slide.pixel_size is None else f"{slide.mpp:g} um/px"
        return f"{slide.width} x {slide.height} px, {len(slide.levels)} level(s), {size}"


def _same(read: Pixels, close: int) -> None:
    wanted = picture()[50:82, 100:164].astype(int)
    off = int(np.abs(read.astype(int) - wanted).max())
    if off > close:
        raise ValueError(f"pixels are off by {off} of 255; reinstall the package that reads them")


def _image(suffix: str, close: int) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        from PIL import Image

        path = folder / f"image{suffix}"
        Image.fromarray(picture()).save(path, quality=95)
        return _opened(path, close)

    return check


def _tiff(compression: str, close: int, name: str) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        return _opened(_written_tiff(folder / f"{compression}{name}", compression), close)

    return check


def _written_tiff(path: Path, compression: str) -> Path:
    import tifffile

    ome = path.name.endswith(".ome.tif")
    sizes = {f"PhysicalSize{a}": 0.5 for a in "XY"} | {f"PhysicalSize{a}Unit": "µm" for a in "XY"}
    with tifffile.TiffWriter(path, ome=ome) as file:
        for level in (0, 1):
            file.write(
                picture()[:: 2**level, :: 2**level],
                photometric="rgb",
                tile=(64, 64),
                compression=compression,
                subifds=1 if ome and not level else None,
                subfiletype=level,
                metadata={"axes": "YXS", **sizes} if ome and not level else None,
            )
    return path


def _openslide(folder: Path) -> str:
    import openslide

    from ..slide.open_slide_source import OpenSlideSource

    source = OpenSlideSource(_written_tiff(folder / "openslide.tif", "jpeg"))
    try:
        _same(source.read(0, 100, 50, 64, 32), 30)
    finally:
        source.close()
    return f"OpenSlide {openslide.__library_version__}"


def _zarr(version: str) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        import zarr

        path = folder / f"{version}.ome.zarr"
        group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
        array = group.create_array("0", shape=(SIDE, SIDE, 3), chunks=(64, 64, 3), dtype="uint8")
        array[...] = picture()
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
        scale = {"type": "scale", "scale": [0.5, 0.5, 1.0]}
        image = {
            "version": version,
            "axes": [*axes, {"name": "c", "type": "channel"}],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
        told = {"multiscales": [image]}
        group.attrs.update(told if version == "0.4" else {"ome": {"version": version, **told}})
        return _opened(path)

    return check


def _anndata(folder: Path) -> str:
    from anndata import AnnData, read_h5ad

    path = folder / "counts.h5ad"
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    AnnData(values).write_h5ad(path)
    if not np.array_equal(read_h5ad(path).X, values):
        raise ValueError("other values come out than went in; reinstall anndata and h5py")
    return "written and read"


CHECKS: dict[str, Callable[[Path], str]] = {
    "PNG": _image(".png", 0),
    "JPEG": _image(".jpg", 30),
    "TIFF": _tiff("deflate", 0, ".tif"),
    "TIFF, JPEG tiles": _tiff("jpeg", 30, ".tif"),
    "TIFF, JPEG 2000": _tiff("jpeg2000", 30, ".tif"),
    "OME-TIFF": _tiff("deflate", 0, ".ome.tif"),
    "OpenSlide": _openslide,
    "OME-Zarr 0.4": _zarr("0.4"),
    "OME-Zarr 0.5": _zarr("0.5"),
    "AnnData": _anndata,
}
