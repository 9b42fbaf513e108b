"""A folder that has everything the documentation's commands name, small and quick."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from imageio.v3 import imwrite

from .docs_commands import ROOT, block_with

GENES = 16  # of the panel
SECTIONS = {"C2": 67, "C3": 18, "C4": 18, "C5": 18}  # spots; fine-tuning on C2 wants many
TABLES = ("human_gene_descriptions.tsv.gz", "hgnc_alias_to_approved.tsv.gz")
NEW = ("FOXP3", "PDCD1", "PSAP")  # genes the pages look up


def make_folder(folder: Path, data: Path) -> None:
    """Slides, sections and gene tables from the crop of C3 and the real slide of a scanner."""
    crop, slide = data / "her2st" / "crop", data / "wsi" / "CMU-1-Small-Region.svs"
    symbols = _genes(folder, data)
    _sections(folder / "DATA" / "her2st", crop, symbols)
    shutil.copytree(folder / "DATA" / "genes", folder / "TABLES")
    (folder / "DATA" / "wsi").mkdir()
    shutil.copy(folder / "DATA/genes/panel_her2st_250.txt", folder / "panel.txt")
    for name in ("slide.svs", "SLIDE", "slides/one.svs", "monday/C3.svs", "DATA/wsi/" + slide.name):
        _copy(slide, folder / name)
    for name in ("monday/C4.svs", "tuesday/C3.svs", "slide.ome.tif"):
        _copy(crop / "C3_crop.ome.tif", folder / name)
    for name in ("slide.jpg", "C3.jpg", "I", "I.jpg"):
        _copy(crop / "C3_crop.jpg", folder / name)
    for name in ("C", "C.tsv.gz", "C3.tsv.gz"):
        _copy(folder / "DATA/her2st/ST-cnts/C3.tsv.gz", folder / name)
    for name in ("S", "S.tsv", "C3_selection.tsv"):
        _copy(crop / "C3_crop_selection.tsv", folder / name)
    _copy(ROOT / "src/napari_dkan/checkpoints/her2-breast.safetensors", folder / "dkan.safetensors")
    _copy(folder / "dkan.safetensors", folder / "mine.safetensors")
    _copy(ROOT / "docs/reports/reliability.json", folder / "docs/reports/reliability.json")
    for name in ("annotations.geojson", "qupath.geojson", "C4.geojson"):
        _region(folder / name)
    mask = np.zeros((256, 256), np.uint8)
    mask[100:180, 90:170] = 255
    imwrite(folder / "mask.png", mask)
    (folder / "slides.csv").write_text(
        block_with(ROOT / "docs/batch.md", "slide,mpp,checkpoint,regions,out")
    )


def _genes(folder: Path, data: Path) -> list[str]:
    """The first genes of the panel, and the lines of the tables that are about them."""
    symbols = (data / "genes/panel_her2st_250.txt").read_text().split()
    symbols = [*dict.fromkeys(["ERBB2", "CD74", "PSAP", *symbols])][:GENES]
    genes = folder / "DATA" / "genes"
    genes.mkdir(parents=True)
    (genes / "panel_her2st_250.txt").write_text("\n".join(symbols))
    for name, column in zip(TABLES, ("symbol", "approved"), strict=True):
        table = pd.read_csv(data / "genes" / name, sep="\t", dtype=str)
        table[table[column].isin([*symbols, *NEW])].to_csv(genes / name, sep="\t", index=False)
    return symbols


def _sections(root: Path, crop: Path, symbols: list[str]) -> None:
    """Four sections: the first spots of the crop, and its image."""
    (root / "ST-cnts").mkdir(parents=True)
    (root / "ST-spotfiles").mkdir()
    counts = pd.read_csv(crop / "C3_crop.tsv.gz", sep="\t", index_col=0)[symbols]
    for number, (name, spots) in enumerate(SECTIONS.items()):
        _copy(crop / "C3_crop.jpg", root / f"ST-imgs/C/{name}/{name}.jpg")
        _copy(crop / "C3_crop_selection.tsv", root / f"ST-spotfiles/{name}_selection.tsv")
        with gzip.open(root / f"ST-cnts/{name}.tsv.gz", "wt", compresslevel=1) as file:
            (counts[:spots] + number % 2).to_csv(file, sep="\t")


def _region(path: Path) -> None:
    ring = [[700, 700], [1500, 700], [1500, 1500], [700, 1500], [700, 700]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": shape, "properties": {"objectType": "annotation"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
