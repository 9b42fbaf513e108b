"""One known section, written into every container of counts and spots that is read."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmwrite

from napari_dkan.expression.readers.discovery import read_sections

from .section_files import write_tenx

SIDE = 6
MPP = 0.5
N_SPOTS = SIDE * SIDE


@dataclass
class KnownSection:
    """36 spots on a hexagonal array of 100 um at 0.5 um/px, 4 genes; change it before writing."""

    genes: list[str] = field(default_factory=lambda: ["ERBB2", "CD74", "KRT8", "XIST"])
    ids: list[str] = field(
        default_factory=lambda: [f"ENSG{i:011d}" for i in (141736, 19582, 170421, 229807)]
    )
    kinds: list[str] = field(default_factory=lambda: ["Gene Expression"] * 4)
    counts: np.ndarray = field(
        default_factory=lambda: 1 + np.add.outer(7 * np.arange(N_SPOTS), np.arange(4)) % 50
    )
    in_tissue: np.ndarray = field(default_factory=lambda: np.ones(N_SPOTS, dtype=int))
    library: list[str] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        row, step = np.divmod(np.arange(N_SPOTS), SIDE)
        column = 2 * step + row % 2
        letters = "ACGT"
        names = [
            "".join(letters[(i >> (2 * k)) & 3] for k in range(8)) + "-1" for i in range(N_SPOTS)
        ]
        return pd.DataFrame(
            {
                "barcode": names,
                "in_tissue": self.in_tissue,
                "array_row": row,
                "array_col": column,
                "pxl_row_in_fullres": 90 + row * 100 * np.sqrt(3) / 2 / MPP,
                "pxl_col_in_fullres": 120 + column * 50 / MPP,
            }
        )

    @property
    def xy(self) -> np.ndarray:
        return self.table[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()

    @property
    def shapes(self) -> pd.DataFrame:
        """Circles of the spots with the number of each as index, as SpatialData stores them."""
        import shapely

        circles = shapely.to_wkb(shapely.points(self.xy))
        return pd.DataFrame({"geometry": list(circles), "radius": 55.0})

    def add_features(self, names: Sequence[str], kind: str, value: int = 5000) -> None:
        """Add features that are no genes, whose ids are their names."""
        self.genes += names
        self.ids += names
        self.kinds += [kind] * len(names)
        self.counts = np.hstack([self.counts, np.full((N_SPOTS, len(names)), value)])

    def anndata(self) -> anndata.AnnData:
        table = self.table.set_index("barcode")
        obs = table[["in_tissue", "array_row", "array_col"]].copy()
        if self.library:
            obs["library_id"] = self.library
        var = pd.DataFrame({"gene_ids": self.ids, "feature_types": self.kinds}, index=self.genes)
        data = anndata.AnnData(sparse.csr_matrix(self.counts.astype(np.float32)), obs=obs, var=var)
        data.obsm["spatial"] = self.xy
        return data


def write_h5ad(section: KnownSection, root: Path) -> Path:
    section.anndata().write_h5ad(root / "s.h5ad")
    return root / "s.h5ad"


def write_hest(section: KnownSection, root: Path) -> Path:
    (root / "st").mkdir()
    section.anndata().write_h5ad(root / "st" / "s.h5ad")
    return root


def write_space_ranger(section: KnownSection, root: Path) -> Path:
    spatial = root / "s" / "spatial"
    spatial.mkdir(parents=True)
    section.table.to_csv(spatial / "tissue_positions.csv", index=False)
    names = section.table["barcode"].tolist()
    path = root / "s" / "filtered_feature_bc_matrix.h5"
    write_tenx(path, section.counts, names, section.genes, section.ids, section.kinds)
    return root / "s"


def write_mtx(section: KnownSection, root: Path, features: str = "features.tsv.gz") -> Path:
    folder = write_space_ranger(section, root)
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    write_mtx_files(section, folder / "filtered_feature_bc_matrix", "", features)
    return folder


def write_mtx_files(
    section: KnownSection, folder: Path, prefix: str, features: str = "features.tsv.gz"
) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    mmwrite(folder / "matrix.mtx", sparse.coo_matrix(section.counts.T.astype(int)))
    plain = (folder / "matrix.mtx").read_bytes()
    (folder / "matrix.mtx").unlink()
    (folder / f"{prefix}matrix.mtx.gz").write_bytes(gzip.compress(plain))
    table = pd.DataFrame({"id": section.ids, "name": section.genes, "kind": section.kinds})
    if features.startswith("genes"):
        table = table.drop(columns="kind")
    table.to_csv(folder / f"{prefix}{features}", sep="\t", header=False, index=False)
    section.table["barcode"].to_csv(
        folder / f"{prefix}barcodes.tsv.gz", sep="\t", header=False, index=False
    )


def write_spatialdata(section: KnownSection, root: Path) -> Path:
    """In the layout of a store that spatialdata 0.7.3 wrote."""
    import zarr

    with zipfile.ZipFile(Path(__file__).parent / "data" / "spatialdata_tiny.zip") as archive:
        archive.extractall(root / "unpacked")
    store = root / "s.zarr"
    shutil.move(root / "unpacked" / "one.zarr", store)
    shutil.rmtree(root / "unpacked")
    shutil.rmtree(store / "images")
    path = store / "tables" / "table"
    keys = dict(zarr.open_group(str(path), mode="r").attrs)
    data = section.anndata()
    del data.obsm["spatial"]
    data.obs[keys["region_key"]] = "spots"
    number = {name: i for i, name in enumerate(section.table["barcode"])}
    data.obs[keys["instance_key"]] = [number[name] for name in data.obs_names]
    shutil.rmtree(path)
    anndata.io.write_zarr(path, data) if hasattr(anndata.io, "write_zarr") else data.write_zarr(
        path
    )
    zarr.open_group(str(path), mode="r+").attrs.update(
        {name: keys[name] for name in keys if name in ("region", "region_key", "instance_key")}
    )
    shapes = store / "shapes" / "spots"
    section.shapes.to_parquet(shapes / "shapes.parquet")
    attributes = json.loads((shapes / ".zattrs").read_text())
    transform = attributes["coordinateTransformations"][0]
    attributes["coordinateTransformations"] = [
        {"type": "identity", "input": transform["input"], "output": transform["output"]}
    ]
    (shapes / ".zattrs").write_text(json.dumps(attributes))
    return store


Writer = Callable[[KnownSection, Path], Path]
CONTAINERS: dict[str, Writer] = {
    "h5ad": write_h5ad,
    "HEST": write_hest,
    "10x h5": write_space_ranger,
    "mtx": write_mtx,
    "SpatialData": write_spatialdata,
}


def read_back(write: Writer, section: KnownSection, root: Path) -> anndata.AnnData:
    (data,) = read_sections(write(section, root))
    return data
