"""Check every file reader with a small file that is written for the check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .check_result import CheckResult, run_check

READERS_SECTION = "readers"
IMAGE_SIDE_PX = 256
RgbImage = NDArray[np.uint8]


def check_readers() -> Iterator[CheckResult]:
    """Write and read a file of every supported format."""
    with tempfile.TemporaryDirectory(prefix="napari-dkan-doctor-") as folder:
        for name, check in READER_CHECKS.items():
            yield run_check(READERS_SECTION, name, partial(check, Path(folder)))


def create_test_image() -> RgbImage:
    """Create a smooth image (256, 256, 3) in which every region is different."""
    y, x = np.mgrid[:IMAGE_SIDE_PX, :IMAGE_SIDE_PX]
    return np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8)


def check_slide_file(path: Path, tolerance: int = 0) -> str:
    """Read a file of the test image. Raises ValueError if pixels differ."""
    from ..slide import open_slide

    with open_slide(path) as slide:
        _check_pixels(slide.read_region(100, 50, 64, 32), tolerance)
        size = "no pixel size" if slide.pixel_size is None else f"{slide.mpp:g} um/px"
        return f"{slide.width} x {slide.height} px, {len(slide.levels)} level(s), {size}"


def _check_pixels(read: RgbImage, tolerance: int) -> None:
    expected = create_test_image()[50:82, 100:164].astype(int)
    difference = int(np.abs(read.astype(int) - expected).max())
    if difference > tolerance:
        raise ValueError(
            f"pixels are off by {difference} of 255; reinstall the package that reads them"
        )


def _create_image_check(suffix: str, tolerance: int) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        from PIL import Image

        path = folder / f"image{suffix}"
        Image.fromarray(create_test_image()).save(path, quality=95)
        return check_slide_file(path, tolerance)

    return check


def _create_tiff_check(compression: str, tolerance: int, name: str) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        return check_slide_file(write_tiff(folder / f"{compression}{name}", compression), tolerance)

    return check


def write_tiff(path: Path, compression: str) -> Path:
    """Write the test image as a TIFF with two levels, as OME-TIFF for the suffix .ome.tif."""
    import tifffile

    is_ome = path.name.endswith(".ome.tif")
    sizes = {f"PhysicalSize{a}": 0.5 for a in "XY"} | {f"PhysicalSize{a}Unit": "µm" for a in "XY"}
    with tifffile.TiffWriter(path, ome=is_ome) as file:
        for level in (0, 1):
            file.write(
                create_test_image()[:: 2**level, :: 2**level],
                photometric="rgb",
                tile=(64, 64),
                compression=compression,
                subifds=1 if is_ome and not level else None,
                subfiletype=level,
                metadata={"axes": "YXS", **sizes} if is_ome and not level else None,
            )
    return path


def _check_openslide(folder: Path) -> str:
    import openslide

    from ..slide.sources.openslide_source import OpenSlideSource

    source = OpenSlideSource(write_tiff(folder / "openslide.tif", "jpeg"))
    try:
        _check_pixels(source.read(0, 100, 50, 64, 32), 30)
    finally:
        source.close()
    return f"OpenSlide {openslide.__library_version__}"


def _create_zarr_check(version: str) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        import zarr

        path = folder / f"{version}.ome.zarr"
        group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
        array = group.create_array(
            "0", shape=(IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3), chunks=(64, 64, 3), dtype="uint8"
        )
        array[...] = create_test_image()
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
        scale = {"type": "scale", "scale": [0.5, 0.5, 1.0]}
        image = {
            "version": version,
            "axes": [*axes, {"name": "c", "type": "channel"}],
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
        metadata: dict[str, Any] = {"multiscales": [image]}
        if version != "0.4":
            metadata = {"ome": {"version": version, **metadata}}
        group.attrs.update(metadata)
        return check_slide_file(path)

    return check


def _check_anndata(folder: Path) -> str:
    from anndata import AnnData, read_h5ad

    path = folder / "counts.h5ad"
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    AnnData(values).write_h5ad(path)
    if not np.array_equal(read_h5ad(path).X, values):
        raise ValueError("other values come out than went in; reinstall anndata and h5py")
    return "written and read"


READER_CHECKS: dict[str, Callable[[Path], str]] = {
    "PNG": _create_image_check(".png", 0),
    "JPEG": _create_image_check(".jpg", 30),
    "TIFF": _create_tiff_check("deflate", 0, ".tif"),
    "TIFF, JPEG tiles": _create_tiff_check("jpeg", 30, ".tif"),
    "TIFF, JPEG 2000": _create_tiff_check("jpeg2000", 30, ".tif"),
    "OME-TIFF": _create_tiff_check("deflate", 0, ".ome.tif"),
    "OpenSlide": _check_openslide,
    "OME-Zarr 0.4": _create_zarr_check("0.4"),
    "OME-Zarr 0.5": _create_zarr_check("0.5"),
    "AnnData": _check_anndata,
}
