"""Stain normalisation: the published formulas, robustness to ink and glass, and its effect."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.errors import CheckpointError, SlideError
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.patch_features.patch_geometry import keys_from_centers
from napari_dkan.inference.patch_features.stain_normalized import (
    StainNormalizedSlide,
    measure_slide_stain,
)
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import describe_checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.encoders.stain_encoder import StainEncoder
from napari_dkan.model.stain_normalization import (
    STAIN_METHODS,
    MacenkoStain,
    ReinhardStain,
    StainNormalizer,
    measure_stain,
    select_stained_pixels,
    stain_from_json,
    stain_to_json,
)
from napari_dkan.slide import open_slide
from napari_dkan.training.data.augmentation import StainTransform
from napari_dkan.training.data.section_loading import load_sections, read_section_data
from napari_dkan.training.finetuning.training_section import TrainingSectionReader
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.train import TrainingInputs, train_on_sections
from napari_dkan.training.train_settings import Augmentation

from .tiny_sections import QUICK

STAINS = np.array([[0.65, 0.70, 0.29], [0.22, 0.87, 0.43]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
OTHERS = np.array([[0.60, 0.71, 0.36], [0.20, 0.84, 0.50]])
MPP = 0.7


def paint_pixels(stains, scale, seed=0, count=20_000):
    """Pixels (N, 3) of known stains in known amounts."""
    draw = np.random.default_rng(seed)
    amounts = draw.gamma(2.0, 0.35, (count, 2)) * scale
    amounts[: count // 4, 0] = 0.02  # some pixels have little of one stain, some of the other
    amounts[count // 4 : count // 2, 1] = 0.02
    density = amounts @ stains + draw.normal(0, 0.003, (count, 3))
    return np.clip(240 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


# --- against the formulas ----------------------------------------------------------------


def compute_macenko_reference(pixels):
    """Macenko et al. 2009, step by step: stain matrix (3, 2) and full amounts (2,)."""
    density = -np.log((pixels.astype(float) + 1) / 240)
    density = density[density.mean(axis=1) >= 0.15]
    _, vectors = np.linalg.eigh(np.cov(density, rowvar=False))
    plane = vectors[:, [2, 1]]
    plane = plane * np.sign(plane[0])
    along = density @ plane
    angles = np.arctan2(along[:, 1], along[:, 0])
    extremes = np.percentile(angles, [1, 99])
    first, second = (plane @ np.array([np.cos(a), np.sin(a)]) for a in extremes)
    matrix = np.array([first, second] if first[0] > second[0] else [second, first]).T
    amounts = np.linalg.lstsq(matrix, density.T, rcond=None)[0]
    return matrix, np.percentile(amounts, 99, axis=1)


def test_macenko_is_the_published_method():
    own = paint_pixels(STAINS, 1.0)
    slide, target = (
        MacenkoStain.from_pixels(select_stained_pixels(own)),
        MacenkoStain.from_pixels(select_stained_pixels(paint_pixels(OTHERS, 0.8, seed=1))),
    )
    matrix, full = compute_macenko_reference(select_stained_pixels(own))
    found = np.array([slide.haematoxylin, slide.eosin])
    np.testing.assert_allclose(found.T, matrix, atol=1e-6)
    np.testing.assert_allclose(slide.amounts, full, atol=1e-6)
    assert np.abs(found - STAINS).max() < 0.06  # the stains of the pixels
    density = -np.log((own.astype(float) + 1) / 240)
    amounts = np.linalg.lstsq(matrix, density.T, rcond=None)[0]
    amounts *= (np.array(target.amounts) / full)[:, None]
    wanted = 240 * np.exp(-np.array([target.haematoxylin, target.eosin]).T @ amounts).T
    made = StainNormalizer(slide, target)(own)
    assert np.abs(made - np.clip(wanted, 0, 255)).max() <= 1
    assert made.dtype == np.uint8 and np.abs(made.astype(int) - own).mean() > 5


def test_reinhard_is_the_published_method():
    own, other = (
        select_stained_pixels(paint_pixels(STAINS, 1.0)),
        select_stained_pixels(paint_pixels(STAINS, 0.7, seed=1)),
    )
    cones = [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]

    def opponents(pixels):
        l, m, s = np.log10((pixels + 1.0) / 256 @ np.array(cones).T).T  # noqa: E741
        return np.array([(l + m + s) / 3**0.5, (l + m - 2 * s) / 6**0.5, (l - m) / 2**0.5]).T

    seen, wanted = opponents(own), opponents(other)
    stain, target = ReinhardStain.from_pixels(own), ReinhardStain.from_pixels(other)
    np.testing.assert_allclose(stain.mean, seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stain.spread, seen.std(axis=0), atol=1e-5)
    made = StainNormalizer(stain, target)(own)
    dense = -np.log((own + 1.0) / 240).mean(axis=1) > 0.2
    moved = (seen - seen.mean(0)) / seen.std(0) * wanted.std(0) + wanted.mean(0)
    l, a, b = moved.T  # noqa: E741
    logs = np.array([l / 3**0.5 + a / 6**0.5 + b / 2**0.5, l / 3**0.5 + a / 6**0.5 - b / 2**0.5,
                     l / 3**0.5 - 2 * a / 6**0.5]).T  # fmt: skip
    light = 256 * (10**logs @ np.linalg.inv(cones).T) - 1
    assert np.abs(made - np.clip(light, 0, 255))[dense].max() <= 1


# --- slides ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def restained_file(tiny_slide_file, tmp_path_factory):
    """The small slide as another laboratory would have stained it."""
    change = StainTransform.sample(Augmentation(amount=0.35, colour=0.1), np.random.default_rng(4))
    return write_slide(tmp_path_factory, "restained", change(tifffile.imread(tiny_slide_file)))


def write_slide(tmp_path_factory, name, image):
    file = tmp_path_factory.mktemp("slide") / f"{name}.ome.tif"
    size = {"PhysicalSizeX": MPP, "PhysicalSizeXUnit": "µm", "axes": "YXS"}
    size |= {"PhysicalSizeY": MPP, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(file, image, tile=(256, 256), photometric="rgb", metadata=size)
    return file


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_a_restained_slide_looks_like_the_original_again(method, tiny_slide_file, restained_file):
    with open_slide(tiny_slide_file) as plain, open_slide(restained_file) as other:
        target = measure_slide_stain(plain, MPP, method)
        assert measure_slide_stain(plain, MPP, method) == target  # always the same
        places = [(500, 700), (800, 800), (1000, 600)]
        wanted, before, after = (
            np.stack([s.read_patch(x, y, 224, 224) for x, y in places]).astype(float)
            for s in (plain, other, StainNormalizedSlide(other, MPP, target))
        )
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_ink_and_glass_have_little_influence(method, tiny_slide_file, tmp_path_factory):
    """A twentieth of the slide under inks of four colours, and glass all around."""
    image = tifffile.imread(tiny_slide_file)
    with open_slide(tiny_slide_file) as slide:
        plain = measure_slide_stain(slide, MPP, method)
    marked = np.pad(image, ((0, 400), (0, 400), (0, 0)), constant_values=244)
    for row, ink in enumerate([(20, 20, 25), (30, 60, 190), (20, 130, 60), (200, 30, 40)]):
        marked[400 + 200 * row : 420 + 200 * row] = ink
    with open_slide(write_slide(tmp_path_factory, "marked", marked)) as slide:
        found = measure_slide_stain(slide, MPP, method)
    for name, value in stain_to_json(plain).items():
        if name != "method":
            np.testing.assert_allclose(stain_to_json(found)[name], value, rtol=0.1, atol=0.06)
    white = np.full((4, 4, 3), 244, np.uint8)
    assert np.abs(StainNormalizer(found, plain)(white).astype(int) - 244).max() <= 6


def test_a_slide_without_stained_tissue_is_refused(tmp_path_factory):
    with (
        open_slide(
            write_slide(tmp_path_factory, "glass", np.full((600, 600, 3), 240, np.uint8))
        ) as s,
        pytest.raises(SlideError, match=r"stain of glass cannot be measured .*without stain"),
    ):
        measure_slide_stain(s, MPP, "macenko")
    with pytest.raises(SlideError):
        measure_stain("reinhard", [np.zeros((10, 3), np.uint8)])


# --- the checkpoint ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint_file, tiny_slide_file, tmp_path_factory):
    """The small checkpoint as it was, and with the small slide's stain as its target."""
    plain = load_checkpoint(tiny_checkpoint_file)
    with open_slide(tiny_slide_file) as slide:
        stain = measure_slide_stain(slide, MPP, "macenko")
        places = np.random.default_rng(0).uniform(200, 1400, (60, 2))
        tiles = np.stack([slide.read_patch(x, y, 160, 56) for x, y in places])
    # The checkpoint's encoder was fitted on noise and does not distinguish tissues.
    encoder = StainEncoder.fit([torch.from_numpy(tiles).permute(0, 3, 1, 2)], 16)
    plain = replace(plain, encoder=encoder.spec, encoder_tensors=encoder.tensors())
    folder = tmp_path_factory.mktemp("checkpoint")
    return (
        save_checkpoint(folder / "plain.safetensors", plain),
        save_checkpoint(folder / "normalising.safetensors", replace(plain, stain=stain)),
    )


def test_a_checkpoint_stores_the_target_stain(checkpoints):
    plain, normalising = checkpoints
    again = load_checkpoint(normalising.path)
    assert again.stain == normalising.stain and plain.stain is None
    assert normalising.stain.method.title() in describe_checkpoint(again)
    assert "Stain         as it is" in describe_checkpoint(plain)
    # An older program must refuse a file with normalisation, and read others as before.
    assert b'\\"format\\": 2' in normalising.path.read_bytes()[:4000]
    assert b'\\"format\\": 1' in plain.path.read_bytes()[:4000]


def test_the_same_section_restained_predicts_closer_to_the_original(
    checkpoints, tiny_slide_file, restained_file
):
    def predicted(file, checkpoint):
        with open_slide(file) as slide:
            predictor = Predictor(slide, checkpoint, MPP, first, "cpu")
            target = target_from_region(first, 550, MPP, slide.width, slide.height, first)
            return predict(predictor, target, "OME metadata")

    with open_slide(tiny_slide_file) as slide:
        first = find_tissue_region(slide, MPP)
    differences = []
    for checkpoint in checkpoints:
        original, other = (predicted(f, checkpoint) for f in (tiny_slide_file, restained_file))
        differences.append(np.abs(original.values - other.values).mean())
        said = other.provenance["stain"]
        assert said == ("none" if checkpoint.stain is None else checkpoint.stain.method)
    assert differences[1] < 0.5 * differences[0]


def test_cached_features_depend_on_the_stain(checkpoints, tiny_slide_file, monkeypatch, tmp_path):
    """The same encoder on the same slide: normalised tiles are others."""
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path))
    from napari_dkan.inference.cache.cache_directory import list_keys

    with open_slide(tiny_slide_file) as slide:
        tissue = find_tissue_region(slide, MPP)
        for checkpoint in checkpoints:
            predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu", use_disk_cache=True)
            for _ in predictor.precompute_context(np.array([[800.0, 800.0]])):
                pass
            keys = keys_from_centers(np.array([[800.0, 800.0]]))
            assert keys.shape == (1, 2)
    stains = [dict(k.made_by).get("stain") for k in list_keys(tmp_path) if k.what == "features"]
    assert len(stains) == 2 and stains.count(None) == 1


def test_training_normalises_all_sections_to_one_stain(tiny_slide_file, restained_file, tmp_path):
    """So does everything that reads further sections for the checkpoint."""
    import anndata
    import pandas as pd

    genes = ["ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "ACTB"]
    at = np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(-1, 2)
    for name, image in {"S1": tiny_slide_file, "S2": restained_file}.items():
        counts = np.random.default_rng(1).poisson(5, (len(at), len(genes))).astype(np.float32)
        data = anndata.AnnData(
            counts,
            obs=pd.DataFrame({"array_row": at[:, 1], "array_col": at[:, 0]}).set_axis(
                [f"{x}x{y}" for x, y in at]
            ),
            var=pd.DataFrame(index=genes),
            obsm={"spatial": 500.0 + 200 * at},
            uns={"image": str(image), "mpp": MPP, "spot_pitch_um": 140.0},
        )
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    panel, settings = Panel.from_symbols(genes), replace(QUICK, patch_um=112.0, epochs=1)
    distances = []
    for method in (None, "macenko"):
        sections = load_sections(tmp_path, None, panel, settings, stain=method)
        first, second = (s.patches.float() for s in sections)
        distances.append(float((first - second).abs().mean()))
        assert [s.stain is None for s in sections] == [method is None] * 2
    assert distances[1] < 0.5 * distances[0] and sections[0].stain == sections[1].stain
    inputs = TrainingInputs(sections, panel, make_random_gene_text(panel, 8, 1), settings)
    assert inputs.to_config("train")["stain"]
    checkpoint = train_on_sections(sections, panel, settings=settings, crossval=False)
    assert checkpoint.stain == sections[0].stain
    (again,) = read_section_data(tmp_path, ["S2"])
    training_section = TrainingSectionReader(checkpoint).read(again, panel)
    assert torch.equal(training_section.section.patches, sections[1].patches)


GOOD = {"method": "macenko", "haematoxylin": [0.7, 0.6, 0.4], "eosin": [0.2, 0.9, 0.4]}
GOOD |= {"amounts": [2.0, 1.0]}
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(-(10**30), 10**30),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(st.sampled_from(sorted(GOOD)), anything)
def test_a_damaged_target_is_refused(name, value):
    assert stain_from_json(json.loads(json.dumps(GOOD))) is not None
    try:
        made = stain_from_json(GOOD | {name: value})
    except CheckpointError:
        return
    assert isinstance(made, MacenkoStain) and min(made.amounts) > 0
    StainNormalizer(made, made)(np.arange(24, dtype=np.uint8).reshape(-1, 3))
