"""Small files that claim to be huge: refused by size, before memory is asked for."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_dkan.errors import DkanError

from ..section_files import write_tenx
from .loaders import LOADERS, Corner
from .watch import resident, watched

DATA = Path(__file__).resolve().parent.parent / "data"
LOAD = {loader.name: loader.load for loader in LOADERS}
ROOM = 300 * 2**20


def refused(load, path, words):
    """One sentence that names the file, and no memory taken on the way to it."""
    before = resident()
    with watched(), pytest.raises(DkanError, match=words) as caught:
        load(path)
    assert resident() - before < ROOM
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


def rewritten(source, path, edit):
    """A checkpoint with its header passed through edit."""
    data = source.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    described = json.loads(header["__metadata__"]["napari_dkan"])
    edit(header, described)
    header["__metadata__"]["napari_dkan"] = json.dumps(described)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


class TestCheckpoint:
    def test_that_claims_a_billion_genes(self, tiny_checkpoint_file, tmp_path):
        def billion(header, described):
            described["network"]["genes"] = 10**9

        def billion_rows(header, described):
            billion(header, described)
            for tensor in header.values():
                if tensor.get("shape", [0])[:1] == [6]:
                    tensor["shape"][0] = 10**9

        for edit in (billion, billion_rows):
            path = rewritten(tiny_checkpoint_file, tmp_path / "billion.safetensors", edit)
            refused(LOAD["checkpoint"], path, "genes")

    def test_that_claims_a_network_of_terabytes(self, tiny_checkpoint_file, tmp_path):
        def wide(header, described):
            described["network"].update(dim=16_384, text_dim=16_384)
            described["encoder"]["dimension"] = 16_384

        path = rewritten(tiny_checkpoint_file, tmp_path / "wide.safetensors", wide)
        refused(LOAD["checkpoint"], path, "cannot be used as a checkpoint")

    def test_with_a_tensor_larger_than_the_file(self, tiny_checkpoint_file, tmp_path):
        def longer(header, described):
            name = next(n for n in header if n.startswith("encoder."))
            header[name].update(shape=[2**40], data_offsets=[0, 2**42])

        path = rewritten(tiny_checkpoint_file, tmp_path / "longer.safetensors", longer)
        refused(LOAD["checkpoint"], path, "truncated|damaged")

    def test_that_is_a_zip_bomb(self, tmp_path):
        import zipfile

        from napari_dkan.model.tensor_files import read_torch_file

        path = tmp_path / "bomb.ckpt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(500 << 20))
        refused(read_torch_file, path, "claims to unpack to")


class TestMeasured:
    @pytest.mark.parametrize("name", ["X", "obsm/spatial", "obs/array_col"])
    def test_h5ad_of_terabytes(self, name, tmp_path):
        path = tmp_path / "huge.h5ad"
        seeds = next(loader for loader in LOADERS if loader.name == "h5ad").seeds
        path.write_bytes(seeds(Corner(tmp_path, path, None))[0])
        with h5py.File(path, "r+") as file:
            kept = dict(file[name].attrs)
            del file[name]
            huge = file.create_dataset(name, (10**9, 250), "f4", chunks=(1000, 10))
            huge.attrs.update(kept)
        refused(LOAD["h5ad"], path, "claims to hold 931.3 GB")

    def test_h5ad_that_points_to_another_file(self, tmp_path):
        path = tmp_path / "links.h5ad"
        seeds = next(loader for loader in LOADERS if loader.name == "h5ad").seeds
        path.write_bytes(seeds(Corner(tmp_path, path, None))[0])
        with h5py.File(path, "r+") as file:
            del file["uns"]
            file["uns"] = h5py.ExternalLink("/dev/stdin", "/")
        refused(LOAD["h5ad"], path, "refers to other files")

    def test_h5ad_that_ends_the_hdf5_library(self):
        """Found by `make fuzz`: one wrong byte in the attribute of a scalar, and h5py 3.16 reads
        memory that is not its own. The process that reads it first is ended; this one is not."""
        refused(LOAD["h5ad"], DATA / "segfault.h5ad", "cannot survive reading it")
        refused(LOAD["h5ad"], DATA / "segfault.h5ad", "cannot survive reading it")

    def test_tenx_of_terabytes(self, tmp_path):
        from napari_dkan.expression.tables.count_files import read_counts

        path = tmp_path / "huge.h5"
        write_tenx(path, np.ones((3, 2)), ["a", "b", "c"], ["A", "B"])
        with h5py.File(path, "r+") as file:
            del file["matrix/data"]
            file.create_dataset("matrix/data", (2**40,), "i4", chunks=(1000,))
        refused(read_counts, path, "claims to hold")

    def test_gzipped_table_of_gigabytes(self, tmp_path):
        from napari_dkan.expression.tables.count_files import read_counts

        path = tmp_path / "bomb.tsv.gz"
        with gzip.open(path, "wb") as file:
            file.write(b"\tA\tB\n")
            for _ in range(80):
                file.write(b"1x1\t0\t0\n" * 2**19)
        refused(read_counts, path, "claims to hold")

    def test_parquet_of_a_billion_rows(self, tmp_path):
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        path = tmp_path / "bomb.parquet"
        batch = pa.table({"x": pa.array(np.zeros(2_000_000)), "y": pa.array(np.zeros(2_000_000))})
        with ParquetWriter(path, batch.schema) as writer:
            for _ in range(40):
                writer.write_table(batch)
        refused(LOAD["spots"], path, "claims to hold")

    def test_matrix_market_of_a_trillion_entries(self, tmp_path):
        from napari_dkan.expression.tables.count_files import read_counts

        folder = tmp_path / "matrix"
        folder.mkdir()
        head = "%%MatrixMarket matrix coordinate integer general\n"
        (folder / "matrix.mtx").write_text(f"{head}2 3 1000000000000\n1 1 5\n")
        (folder / "features.tsv").write_text("E1\tA\tGene Expression\nE2\tB\tGene Expression\n")
        (folder / "barcodes.tsv").write_text("a\nb\nc\n")
        with watched(), pytest.raises(DkanError, match=r"matrix\.mtx is not read: it claims"):
            read_counts(folder)


class TestSlides:
    def test_tiff_that_claims_to_be_a_million_pixels_wide(self, tmp_path):
        """Opened, if at all, without its pixels: only those asked for are read."""
        import tifffile

        path = tmp_path / "wide.tif"
        with tifffile.TiffWriter(path, bigtiff=True) as writer:
            writer.write(
                np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", metadata=None
            )
        with tifffile.TiffFile(path, mode="r+") as tif:
            for name in ("ImageWidth", "ImageLength"):
                tif.pages.first.tags[name].overwrite(2**31 - 1)
        refused(LOAD["tiff"], path, "wide.tif")

    @pytest.mark.parametrize("kind", ["png", "jpg"])
    def test_picture_that_claims_to_be_huge(self, kind, tmp_path):
        from PIL import Image

        path = tmp_path / f"huge.{kind}"
        Image.new("RGB", (64, 64), "pink").save(path)
        data = bytearray(path.read_bytes())
        if kind == "png":
            data[16:24] = struct.pack(">II", 2_000_000_000, 2_000_000_000)
            import zlib

            data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
        else:
            at = data.find(b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
        path.write_bytes(data)
        refused(LOAD["tiff"], path, f"huge.{kind}")
