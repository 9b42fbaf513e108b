"""Tissue, tiling and encoding beside LazySlide and tiatoolbox: tiles a second and peak memory.

python benchmarks/peers.py [--small] [--envs FOLDER]

The peers are installed into environments in build/peers, with the versions of
peers-constraints.txt. These see the packages of the environment this script runs in, so that torch,
timm, NumPy and the slide libraries are the same for all three. Every tool runs in a process of its
own with the same threads, on the same tiles (224 px of level 0, side by side over the whole slide),
with the same timm network of the same random weights. A run of the same work goes before the
measured one. The peers run as they are by default and with a loading process, and the faster one
counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

HERE = Path(__file__).resolve().parent
PX, BATCH = 224, 32
PEERS = {"lazyslide": "lazyslide", "tiatoolbox": "tiatoolbox"}
READING = "test_efficientnet"  # costs next to nothing: reading dominates
COMPUTING = "resnet18"


def make_environment(folder: Path, peer: str) -> Path:
    """The Python of an environment with the peer, which sees the packages of this one."""
    python = folder / peer / "bin" / "python"
    ready = folder / peer / "ready"
    if ready.exists():
        return python
    venv.create(folder / peer, with_pip=True, clear=True)
    (packages,) = (folder / peer).glob("lib/python*/site-packages")
    seen = [p for p in sys.path if p.endswith("site-packages")]
    (packages / "zz_shared.pth").write_text("\n".join(seen))  # after its own
    pins = [
        line.partition(" ")[0]
        for line in (HERE / "peers-constraints.txt").read_text().splitlines()
        if line.endswith((f"# {peer}", "# both"))
    ]
    # Without dependencies: the peers' own pins would bring another torch of 3 GB.
    pip = [str(python), "-m", "pip", "install", "-qq", "--no-deps", "--no-input"]
    subprocess.run([*pip, *pins], check=True)
    ready.touch()
    return python


def grid(width: int, height: int) -> np.ndarray:
    """(N, 2) upper left corners of the tiles, row by row; the last ones reach over the edge."""
    x, y = np.meshgrid(np.arange(0, width, PX), np.arange(0, height, PX))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def network(name: str):
    """Tiles (B, 3, 224, 224) of 0..255 to features."""
    import timm
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = timm.create_model(name, num_classes=0).eval()

        def forward(self, tiles):
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406),
                                                                (0.229, 0.224, 0.225)))  # fmt: skip
            return self.net((tiles.float() / 255 - mean) / std)

    return Encoder().eval()


def lazyslide_run(path: str, encoder: str, workers: int) -> tuple[Callable, Callable]:
    import lazyslide
    import torch
    from wsidata import TileSpec, open_wsi
    from wsidata.io import add_tiles

    net, wsi = network(encoder), open_wsi(path)
    height, width = wsi.properties.shape

    def tissue() -> int:
        lazyslide.pp.find_tissues(wsi)
        lazyslide.pp.tile_tissues(wsi, PX, mpp=wsi.properties.mpp)
        return len(wsi.shapes["tiles"])

    def encode() -> np.ndarray:
        corners = grid(width, height)
        add_tiles(wsi, "all", corners, TileSpec(PX, PX, PX, PX), np.zeros(len(corners), int))
        return lazyslide.tl.feature_extraction(
            wsi,
            net,
            model_name="net",
            tile_key="all",
            transform=lambda image: torch.from_numpy(np.asarray(image)).permute(2, 0, 1),
            device="cpu",
            amp=False,
            batch_size=BATCH,
            num_workers=workers,
            pbar=False,
            return_features=True,
        )

    return tissue, encode


def tiatoolbox_run(path: str, encoder: str, workers: int) -> tuple[Callable, Callable]:
    import torch
    from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.models_abc import ModelABC
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore import WSIReader

    net = network(encoder)

    class Model(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, tiles):
            return self.net(tiles)

        @staticmethod
        def infer_batch(model, batch, device):
            with torch.inference_mode():
                return [model(batch.permute(0, 3, 1, 2)).numpy()]

    def tissue() -> int:
        reader = WSIReader.open(path)
        mask = reader.tissue_mask(method="morphological", resolution=8.0, units="mpp")
        patches = get_patch_extractor(
            "slidingwindow",
            input_img=reader,
            patch_size=(PX, PX),
            input_mask=mask,
            resolution=0,
            units="level",
        )
        return len(patches)

    def encode() -> np.ndarray:
        level = [{"units": "baseline", "resolution": 1.0}]
        engine = DeepFeatureExtractor(
            model=Model(), batch_size=BATCH, num_workers=workers, verbose=False
        )
        found = engine.run(
            [Path(path)],
            patch_mode=False,
            auto_get_mask=False,
            ioconfig=IOPatchPredictorConfig(
                input_resolutions=level,
                output_resolutions=level,
                patch_input_shape=[PX, PX],
                stride_shape=[PX, PX],
            ),
            save_dir=Path(mkdtemp()) / "features",
            overwrite=True,
            output_type="zarr",
        )
        import zarr

        made = zarr.open(str(next(iter(found.values())) if isinstance(found, dict) else found))
        at = np.asarray(made["coordinates"])[:, :2]
        return np.asarray(made["features"])[np.lexsort((at[:, 0], at[:, 1]))]

    return tissue, encode


def own_run(path: str, encoder: str, workers: int) -> tuple[Callable, Callable]:
    import torch

    from napari_dkan.inference.patch_features.patch_geometry import keys_from_centers
    from napari_dkan.inference.patch_features.patch_loader import open_patch_loader
    from napari_dkan.inference.predict import find_tissue_region
    from napari_dkan.inference.prediction_progress import StageTimer
    from napari_dkan.inference.target import target_from_region
    from napari_dkan.model.encoders.encoder_spec import EncoderSpec
    from napari_dkan.model.encoders.timm_encoder import TimmEncoder
    from napari_dkan.slide import open_slide

    net = network(encoder).net
    tiles_encoder = TimmEncoder(EncoderSpec(encoder, dimension=net.num_features, px=PX), net)
    slide = open_slide(path)

    def tissue() -> int:
        region = find_tissue_region(slide, slide.mpp)
        size = slide.width, slide.height
        return len(target_from_region(region, PX * slide.mpp, slide.mpp, *size, region))

    def encode() -> np.ndarray:
        keys = keys_from_centers(grid(slide.width, slide.height) + PX / 2)
        batches = [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]
        features = []
        with torch.inference_mode(), open_patch_loader(slide, PX, StageTimer()) as loader:
            ahead = [loader.request(keys, PX) for keys in batches[:2]]
            for i in range(len(batches)):
                tiles = ahead.pop(0).result().tiles
                if i + 2 < len(batches):
                    ahead.append(loader.request(batches[i + 2], PX))
                features.append(tiles_encoder(torch.from_numpy(tiles).permute(0, 3, 1, 2)).numpy())
        return np.concatenate(features)

    return tissue, encode


RUNS = {"napari-dkan": own_run, "lazyslide": lazyslide_run, "tiatoolbox": tiatoolbox_run}


def measure_here(tool: str, path: str, encoder: str, workers: int, threads: int, out: str) -> None:
    import torch

    torch.set_num_threads(threads)
    tissue, encode = RUNS[tool](path, encoder, workers)
    found = {}
    for _ in range(2):  # the first one is the warm-up
        start, cpu = time.perf_counter(), os.times()
        found["tissue_tiles"] = tissue()
        middle = time.perf_counter()
        features = encode()
        end, after = time.perf_counter(), os.times()
        found |= {"tissue_s": middle - start, "tiles": len(features), "encode_s": end - middle}
        found["cpu_s"] = sum(after[:4]) - sum(cpu[:4])
    scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    found["peak_mb"] = sum(resource.getrusage(kind).ru_maxrss for kind in kinds) / scale
    np.save(out, features)
    print(json.dumps(found))


def measure(python: Path, tool: str, path: Path, encoder: str, workers: int, out: Path) -> dict:
    threads = str(os.cpu_count())
    words = [tool, path, encoder, workers, threads, out]
    own = tool == "napari-dkan"
    environment = {k: v for k, v in os.environ.items() if own or k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(Path(__file__)), "--part", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": threads},
    )
    if done.returncode:
        raise SystemExit(f"{tool} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a pyramid of 6,000 px")
    parser.add_argument("--envs", type=Path, help="of the peers; default build/peers")
    parser.add_argument("--part", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        tool, path, encoder, workers, threads, out = args.part
        measure_here(tool, path, encoder, int(workers), int(threads), out)
        return
    from pyramid import pyramid_file
    from section import BUILD
    from verdict import Figure, print_table

    pythons = {p: make_environment(args.envs or BUILD.parent / "peers", p) for p in PEERS}
    pythons = {"napari-dkan": Path(sys.executable), **pythons}
    pyramid = pyramid_file(6_000 if args.small else 16_000)
    cases = [(pyramid, READING, 2.0)]
    svs = Path(os.environ.get("NAPARI_DKAN_DATA", "nowhere")) / "wsi" / "CMU-1-Small-Region.svs"
    if svs.is_file():
        cases = [(svs, READING, 2.0), (svs, COMPUTING, 1.0), *cases]
    figures = []
    print(
        "\n| slide | network | tool | loaders | tissue and tiles | tiles/s | peak | CPU | apart |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for path, encoder, goal in cases:
        rates: dict[str, float] = {}
        memory: dict[str, float] = {}
        own = None
        for tool, python in pythons.items():
            for workers in (0,) if tool == "napari-dkan" else (0, 1):
                out = BUILD / f"peers-{tool}.npy"
                found = measure(python, tool, path, encoder, workers, out)
                features = np.load(out)
                own = features if own is None else own
                apart = "other tiles"
                if features.shape == own.shape:
                    differences = np.abs(features - own).max(axis=1) / np.abs(own).max()
                    apart = f"{np.median(differences):.0e}"
                rate = found["tiles"] / found["encode_s"]
                if rate > rates.get(tool, 0):
                    rates[tool], memory[tool] = rate, found["peak_mb"]
                print(
                    f"| {path.name} | {encoder} | {tool} | {workers} "
                    f"| {found['tissue_s']:.2f} s, {found['tissue_tiles']} tiles "
                    f"| {rate:.0f} of {found['tiles']} | {found['peak_mb']:.0f} MB "
                    f"| {found['cpu_s']:.1f} s | {apart} |",
                    flush=True,
                )
        peer = max(PEERS, key=rates.__getitem__)
        ratio = rates["napari-dkan"] / rates[peer]
        figures.append(
            Figure(
                f"tiles of {path.name} with {encoder}, beside the faster peer ({peer})",
                f"{os.cpu_count()} CPU cores",
                f">= {goal:g} x",
                f"{ratio:.2f} x ({rates['napari-dkan']:.0f} against {rates[peer]:.0f} tiles/s; "
                f"peak {memory['napari-dkan']:.0f} against {memory[peer]:.0f} MB)",
                ratio >= goal,
            )
        )
    print_table(figures)


if __name__ == "__main__":
    main()
