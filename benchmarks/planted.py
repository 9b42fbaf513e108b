"""Are ruined tiles flagged? Artefacts planted on held-out sections; none of them is real.

    python benchmarks/planted.py --data DATA --folds build/folds --foreign DATA/wsi/SLIDE

C2 to C5 hold hardly any artefact, so blur, pen strokes, folds and holes are drawn around a random
half of the spots, and the slide is predicted again by the checkpoint that never saw it. Told is
how the error of these spots grows, beside depth and with it, and how many of them are flagged with
and without the signs that look at their pixels. Besides, whole slides: other stains and wrong pixel
sizes, and whether the banner speaks. Adds to docs/reports/reliability.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from held_out import SECTIONS, HeldOut, checkpoint_without, held_out_of
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.quality.reliability import (
    DECILES,
    HELD_OUT_RISK_DECILES,
    POOR_BELOW,
    RISK_TERMS,
    TILE_ARTIFACTS,
)
from napari_dkan.quality.slide_checks import check_domain_shift
from napari_dkan.slide import open_slide
from napari_dkan.training.data.augmentation import StainTransform
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.data.section_loading import read_section_data
from napari_dkan.training.train_settings import Augmentation

KINDS = ("blur", "pen", "fold", "hole")
REACH_UM = 120  # half the side of what is painted around a spot
INKS = ((1.3, 0.6, 0.15), (1.1, 0.3, 1.0), (2.2, 2.2, 2.2))  # blue, green, black: densities
SEED = 2021
STRONG = Augmentation(amount=0.6, colour=0.2)


def planted(pixels: NDArray[np.uint8], xy: NDArray, mpp: float, kinds: NDArray) -> NDArray:
    """The slide with an artefact around each spot (N, 2) that has a kind (N,), "" for none."""
    out = pixels.copy()
    reach = round(REACH_UM / mpp)
    rows, columns = np.mgrid[-reach:reach, -reach:reach] * mpp  # um from the spot
    for number, ((x, y), kind) in enumerate(zip(xy.round().astype(int), kinds, strict=True)):
        area = np.s_[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach]
        part = out[area].astype(np.float32)
        density = -np.log((part + 1) / 256)
        from_spot = np.hypot(rows, columns)[-part.shape[0] :, -part.shape[1] :, None]
        band = np.abs(rows + 0.5 * columns)[-part.shape[0] :, -part.shape[1] :, None]
        if kind == "blur":
            part = np.stack([gaussian_filter(part[..., c], 7 / mpp) for c in range(3)], axis=-1)
        elif kind == "pen":
            part = 256 * np.exp(-(density + (band < 40) * np.array(INKS[number % 3]))) - 1
        elif kind == "fold":
            part = 256 * np.exp(-np.where(band < 30, 2.2 * density, density)) - 1
        elif kind == "hole":
            part = np.where(from_spot < 80, 240, part)
        out[area] = np.clip(part, 0, 255)
    return out


def compare(clean: HeldOut, ruined: HeldOut, kinds: NDArray) -> dict[str, Any]:
    made = {}
    unaided = unaided_score(ruined)
    for kind in KINDS:
        rows = kinds == kind
        made[kind] = {
            "spots": int(rows.sum()),
            "error_clean": float(clean.error[rows].mean()),  # of depth residuals
            "error_planted": float(ruined.error[rows].mean()),
            "mse_clean": float(clean.mse[rows].mean()),
            "mse_planted": float(ruined.mse[rows].mean()),
            "flagged_clean": float(clean.judged.unreliable[rows].mean()),
            "flagged_planted": float(ruined.judged.unreliable[rows].mean()),
            "flagged_planted_without_signs": float((unaided[rows] < POOR_BELOW).mean()),
            "by_sign": {
                s.name: float((ruined.judged.concerns[s.name][rows] >= 1).mean())
                for s in TILE_ARTIFACTS
            },
        }
    return made


def unaided_score(spots: HeldOut) -> NDArray:
    """The score before the signs lower it."""
    risk = np.mean([spots.signs[name] for name in RISK_TERMS], axis=0)
    return 1 - np.interp(risk, HELD_OUT_RISK_DECILES, DECILES)


def banners(checkpoint: Any, given: Any, pixels: NDArray, folder: Path) -> dict[str, Any]:
    """What is said of the slide restained, and read with a wrong pixel size."""
    mpp = float(given.uns["mpp"])
    found = {}
    for factor in (2.0, 0.5):
        other = given.copy()
        other.uns = dict(given.uns) | {"mpp": mpp * factor}
        spots = held_out_of(checkpoint, other)
        said = check_domain_shift(checkpoint, spots.evidence, mpp * factor)
        found[f"pixel size x {factor:g}"] = {"mse": float(spots.mse.mean()), "said": said}
    for name, by in (("restained as in training", Augmentation()), ("strongly restained", STRONG)):
        restain = StainTransform.sample(by, np.random.default_rng(SEED))
        file = folder / "restained.tif"
        parts = [restain(pixels[i : i + 500]) for i in range(0, len(pixels), 500)]
        tifffile.imwrite(file, np.concatenate(parts), tile=(256, 256), photometric="rgb")
        spots = held_out_of(checkpoint, given, file)
        said = check_domain_shift(checkpoint, spots.evidence, mpp)
        found[name] = {"mse": float(spots.mse.mean()), "said": said}
    return found


def foreign(checkpoint: Any, args: argparse.Namespace) -> str:
    """What is said of a slide of which nothing is measured."""
    with open_slide(args.foreign) as slide:
        mpp = slide.pixel_size.mpp
        tissue = find_tissue_region(slide, mpp)
        target = target_from_region(
            tissue, checkpoint.patch.um, mpp, slide.width, slide.height, tissue
        )
        predictor = Predictor(slide, checkpoint, mpp, tissue)
        prediction = predict(predictor, target, genes=checkpoint.panel.symbols[:1])
    return check_domain_shift(checkpoint, prediction.qc_features, mpp)


def pixels_of(image: str) -> NDArray[np.uint8]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return np.asarray(Image.open(image).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=Path, default=Path("build/folds"))
    parser.add_argument("--sections", nargs="*", default=SECTIONS)
    parser.add_argument("--altered", nargs="*", default=["C3"], help="whole slides to alter")
    parser.add_argument("--foreign", type=Path, help="a slide of something else")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/reports/reliability.json"))
    args = parser.parse_args()
    found: dict[str, Any] = {"planted": {}, "banner": {}}
    for name in args.sections:
        checkpoint = checkpoint_without(args.folds, name, args.data)
        (given,) = read_section_data(args.data, [name])
        measured = make_measured_section(given, checkpoint)
        pixels = pixels_of(given.uns["image"])
        random = np.random.default_rng(SEED)
        kinds = random.choice(["", *KINDS], len(measured.labeled_spots()), p=[0.5, *[0.125] * 4])
        with TemporaryDirectory() as folder:
            file = Path(folder) / "planted.tif"
            made = planted(pixels, measured.labeled_spots().xy, float(given.uns["mpp"]), kinds)
            tifffile.imwrite(file, made, tile=(256, 256), photometric="rgb")
            clean, ruined = held_out_of(checkpoint, given), held_out_of(checkpoint, given, file)
            found["planted"][name] = compare(clean, ruined, kinds) | {
                "clean_spots_with_a_sign": {
                    s.name: int((clean.judged.concerns[s.name] >= 1).sum()) for s in TILE_ARTIFACTS
                }
            }
            print(name, json.dumps(found["planted"][name]), flush=True)
            said = check_domain_shift(checkpoint, clean.evidence, float(given.uns["mpp"]))
            found["banner"][name] = {"as it is": {"mse": float(clean.mse.mean()), "said": said}}
            if name in args.altered:
                found["banner"][name] |= banners(checkpoint, given, pixels, Path(folder))
        if args.foreign and name == args.sections[0]:
            found["banner"][args.foreign.name] = {"as it is": {"said": foreign(checkpoint, args)}}
        print(json.dumps(found["banner"], indent=1), flush=True)
    report = json.loads(args.out.read_text()) if args.out.is_file() else {}
    args.out.write_text(json.dumps(report | rounded(found), indent=1) + "\n")


def rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return round(found, 3) if isinstance(found, float) else found


if __name__ == "__main__":
    main()
