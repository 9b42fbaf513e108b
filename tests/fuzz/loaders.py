"""What is fuzzed: every loader of a file that a person can hand in, with good files to damage."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openpyxl
import pandas as pd
from hypothesis import strategies as st

from .damage import Damage, hdf5_edits, json_edits, wounds

Seeds = Callable[["Corner"], list[bytes]]


@dataclass(frozen=True)
class Corner:
    """Where good files come from: a folder to make them in, the tiny checkpoint, the real data."""

    folder: Path
    checkpoint: Path
    data: Path | None

    def real(self, *names: str) -> list[bytes]:
        """Real files by their path in the data folder; none where there is no such folder."""
        return [] if self.data is None else [(self.data / name).read_bytes() for name in names]


@dataclass(frozen=True)
class Loader:
    """seeds : good files. damage : what is done to them. load : reads a file. share : of the cases
    that it gets; less for readers that stand on one that gets them all."""

    name: str
    suffix: str
    seeds: Seeds
    damage: st.SearchStrategy[Damage]
    load: Callable[[Path], object]
    share: float = 1.0


# ---- checkpoints ------------------------------------------------------------------------


def _inside_safetensors(edit: Damage) -> Damage:
    """The header's JSON damaged, its length made to fit, the description in it too."""

    def damage(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        key = "napari_dkan"
        header["__metadata__"][key] = edit(header["__metadata__"][key].encode()).decode()
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return damage


def _tensors_of_safetensors(edit: Damage) -> Damage:
    def damage(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        text = edit(data[8 : 8 + length])
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return damage


def _load_checkpoint(path: Path) -> object:
    from napari_dkan.model import load_checkpoint

    return load_checkpoint(path)


# ---- measured expression ------------------------------------------------------------------


def _h5ad_seeds(corner: Corner) -> list[bytes]:
    from anndata import AnnData

    counts = np.arange(24, dtype=np.float32).reshape(6, 4)
    xy = np.stack(np.meshgrid([100.0, 390.0, 680.0], [100.0, 390.0]), -1).reshape(-1, 2)
    obs = pd.DataFrame({"array_col": [1, 2, 3] * 2, "array_row": [1] * 3 + [2] * 3})
    obs.index = [f"spot{i}" for i in range(6)]
    data = AnnData(counts, obs=obs, var=pd.DataFrame(index=["ERBB2", "GATA3", "CD74", "KRT8"]))
    data.obsm["spatial"] = xy
    data.uns["mpp"], data.uns["spot_pitch_um"] = 0.688, 200.0
    path = corner.folder / "seed.h5ad"
    data.write_h5ad(path)
    return [path.read_bytes()]


def _load_h5ad(path: Path) -> object:
    from napari_dkan.errors import SpotsError
    from napari_dkan.expression.readers.layouts.h5ad_sections import read_h5ad_section
    from napari_dkan.expression.tables.spot_files import read_spots

    with suppress(SpotsError):  # and the section all the same: another reader
        read_spots(path)
    return read_h5ad_section(path)


# ---- results --------------------------------------------------------------------------------


def _result_seeds(corner: Corner) -> list[bytes]:
    import anndata

    from napari_dkan.export.saved_result import save_result

    from ..result_files import result, spots_target

    seeds = [
        save_result(corner.folder / "grid.h5ad", result()),
        save_result(corner.folder / "spots.h5ad", result(spots_target(4, tuple("abcd")))),
        corner.folder / "packed.h5ad",
    ]
    anndata.read_h5ad(seeds[0]).write_h5ad(seeds[2], compression="gzip")
    return [path.read_bytes() for path in seeds]


def _load_result(path: Path) -> object:
    from napari_dkan.export.result_reader import is_saved_result, load_result

    is_saved_result(path)
    return load_result(path)


# ---- regions and spots ------------------------------------------------------------------

RING = [[10, 10], [900, 10], [900, 700], [10, 700], [10, 10]]
HOLE = [[100, 100], [200, 100], [200, 200], [100, 200], [100, 100]]


def _geojson_seeds(corner: Corner) -> list[bytes]:
    feature = {
        "type": "Feature",
        "id": "6f9c1b0e-0000-4000-8000-000000000001",
        "geometry": {"type": "Polygon", "coordinates": [RING, HOLE]},
        "properties": {
            "objectType": "annotation",
            "name": "gland",
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "measurements": {"Area": 1.5},
        },
    }
    several = {"type": "MultiPolygon", "coordinates": [[RING], [HOLE]]}
    whole = {"type": "FeatureCollection", "features": [feature, {**feature, "geometry": several}]}
    return [json.dumps(d).encode() for d in (whole, feature, several, [feature])]


def _load_geojson(path: Path) -> object:
    from napari_dkan.spatial.region_files import read_regions

    return read_regions(path)


def _spot_seeds(corner: Corner) -> list[bytes]:
    table = "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n" + "".join(
        f"{x}\t{y}\t{x}.01\t{y}.02\t{x * 290}\t{y * 290}\t1\n" for x in (1, 2, 3) for y in (1, 2)
    )
    positions = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
    positions += "".join(f"A{i}-1,1,{i},{i % 3},{i * 100},{i * 50}\n" for i in range(6))
    plain = "name,x,y\n" + "".join(f"s{i},{i * 10},{i * 7.5}\n" for i in range(6))
    real = corner.real("her2st/ST-spotfiles/C3_selection.tsv")
    excel = io.BytesIO()
    book = openpyxl.Workbook()
    for row in plain.splitlines():
        book.active.append(row.split(","))
    book.save(excel)
    decimal = "sep=;\n# of a spreadsheet\n" + plain.replace(",", ";").replace(".", ",")
    forms = [decimal.encode(), decimal.encode("utf-16"), excel.getvalue()]
    return [text.encode() for text in (table, positions, plain)] + forms + real


def _load_spots(path: Path) -> object:
    from napari_dkan.expression.tables.spot_files import read_spots

    return read_spots(path)


# ---- slides -----------------------------------------------------------------------------


def _tiff_seeds(corner: Corner) -> list[bytes]:
    import tifffile

    from ..slide_files import halves, picture, pyramid_tiff

    levels = halves(picture(120, 150), 2)
    made = [
        pyramid_tiff(corner.folder / "pages.tif", levels, subifds=False),
        pyramid_tiff(corner.folder / "sub.tif", levels, subifds=True),
        pyramid_tiff(corner.folder / "a.ome.tif", levels, subifds=True, ome=True),
    ]
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, picture(100, 130), photometric="rgb", compression="jpeg", metadata=None,
        description="Aperio Image Library v10\n130x100|AppMag = 20|MPP = 0.4990",
        tile=(64, 64), resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return [path.read_bytes() for path in made] + [stream.getvalue()]


def _load_slide(path: Path) -> object:
    from napari_dkan.slide import open_slide

    with open_slide(path) as slide:
        slide.read_region(0, 0, min(slide.width, 150), min(slide.height, 120))
        return slide.pixel_size


# ---- features of other programs -----------------------------------------------------------


def hdf5(**members: Any) -> bytes:
    """A small HDF5 file of these datasets."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, values in members.items():
            file[name] = values
    return stream.getvalue()


def _feature_seeds(corner: Corner) -> list[bytes]:
    at = np.stack(np.meshgrid(np.arange(4), np.arange(3)), -1).reshape(-1, 2) * 256
    features = np.arange(12 * 8, dtype=np.float32).reshape(12, 8)
    plain = hdf5(coords=at, features=features)
    stream = io.BytesIO(plain)
    with h5py.File(stream, "r+") as file:
        told = {"patch_size": 224, "patch_size_level0": 256, "overlap": 0, "name": "slide"}
        file["coords"].attrs.update(told | {"level0_magnification": 20, "target_magnification": 20})
    return [plain, stream.getvalue()]


def _load_features(path: Path) -> object:
    from napari_dkan.inference.patch_features.tile_feature_file import open_feature_file

    found = open_feature_file(path)
    return found.read_features(np.arange(len(found.centers)))


def _mask_seeds(corner: Corner) -> list[bytes]:
    import tifffile
    from PIL import Image

    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:60] = 1
    png, tif = io.BytesIO(), io.BytesIO()
    Image.fromarray(mask * 255).save(png, "PNG")
    tifffile.imwrite(tif, mask)
    return [png.getvalue(), tif.getvalue()]


def _load_mask(path: Path) -> object:
    from napari_dkan.slide.scan_area import ScanArea
    from napari_dkan.spatial.region_files import read_regions

    return read_regions(path, ScanArea.of_image(800, 600))


LOADERS = (
    Loader(
        "checkpoint",
        ".safetensors",
        lambda corner: [corner.checkpoint.read_bytes()],
        st.one_of(
            wounds(),
            json_edits().map(_inside_safetensors),
            json_edits().map(_tensors_of_safetensors),
        ),
        _load_checkpoint,
    ),
    Loader("h5ad", ".h5ad", _h5ad_seeds, st.one_of(wounds(), hdf5_edits()), _load_h5ad),
    Loader("result", ".h5ad", _result_seeds, st.one_of(wounds(), hdf5_edits()), _load_result),
    Loader("geojson", ".geojson", _geojson_seeds, st.one_of(wounds(), json_edits()), _load_geojson),
    Loader("spots", ".tsv", _spot_seeds, wounds(), _load_spots),
    Loader("tiff", ".tif", _tiff_seeds, wounds(), _load_slide),
    Loader(
        "features", ".h5", _feature_seeds, st.one_of(wounds(), hdf5_edits()), _load_features, 0.25
    ),
    Loader("mask", ".png", _mask_seeds, wounds(), _load_mask, 0.25),
)
