"""Does stain normalisation help on a section that was stained otherwise?

Small networks are trained on three sections, once for each way of normalising, and predict the
fourth as it is and in another stain (drawn as training's augmentation draws them):

    python benchmarks/stain_normalisation.py --data DATA -o build/stain.json

`same` is the correlation, over all spots and genes, of the prediction of the restained section
with that of the section as it is; `pcc` is the mean over genes of the correlation with what was
measured.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from napari_dkan.expression.panel import read_panel
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_spots
from napari_dkan.model import Checkpoint
from napari_dkan.slide import Slide, open_slide
from napari_dkan.training.data.augmentation import StainTransform
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.data.section_loading import load_sections, read_section_data
from napari_dkan.training.prediction_scores import score_predictions
from napari_dkan.training.train import train_on_sections
from napari_dkan.training.train_settings import Augmentation, TrainSettings

TRAINING, LEFT_OUT = ["C2", "C4", "C5"], "C3"
METHODS = (None, "macenko", "reinhard")
MPP = 0.688


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--views", type=int, default=0, help="of augmentation; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--restained", type=int, default=3, help="other stains")
    parser.add_argument("-o", "--out", type=Path, default=Path("build/stain.json"))
    args = parser.parse_args()
    augmentation = replace(Augmentation(), views=args.views) if args.views else None
    settings = TrainSettings(epochs=args.epochs, members=args.members, augmentation=augmentation)
    panel = read_panel(args.data / "genes" / "panel_her2st_250.txt")
    (data,) = read_section_data(args.data, [LEFT_OUT])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files = [Path(data.uns["image"]), *restained(Path(data.uns["image"]), args)]
    found: dict[str, object] = {"settings": {k: str(v) for k, v in vars(args).items()}}
    for method in METHODS:
        start = time.perf_counter()
        sections = load_sections(args.data, TRAINING, panel, settings, stain=method)
        checkpoint = train_on_sections(sections, panel, settings=settings, crossval=False)
        results = []
        for file in files:
            with open_slide(file) as slide:
                results.append(predicted(slide, checkpoint, data))
        plain = results[0][0].ravel()
        found[method or "none"] = [
            {"pcc": round(pcc, 4), "same": round(float(np.corrcoef(plain, v.ravel())[0, 1]), 4)}
            for v, pcc in results
        ]
        print(method, found[method or "none"], f"{time.perf_counter() - start:.0f} s", flush=True)
        args.out.write_text(json.dumps(found, indent=1))


def restained(image: Path, args: argparse.Namespace) -> list[Path]:
    """Copies of a section in other stains, without loss."""
    pixels = np.asarray(Image.open(image).convert("RGB"))
    made = []
    for seed in range(args.restained):
        file = args.out.parent / f"restained-{seed}.png"
        if not file.is_file():
            change = StainTransform.sample(Augmentation(), np.random.default_rng(seed))
            bands = [change(band) for band in np.array_split(pixels, 20)]
            Image.fromarray(np.concatenate(bands)).save(file, compress_level=1)
        made.append(file)
    return made


def predicted(slide: Slide, checkpoint: Checkpoint, data: object) -> tuple[np.ndarray, float]:
    """Values (N, G) of the labelled spots, and their mean correlation with the labels."""
    measured = make_measured_section(data, checkpoint)  # type: ignore[arg-type]
    target = target_from_spots(measured.labeled_spots(), slide.width, slide.height, LEFT_OUT)
    predictor = Predictor(slide, checkpoint, MPP, find_tissue_region(slide, MPP))
    values = predict(predictor, target, "spot array").values
    labels = {LEFT_OUT: measured.labels.values}
    per_gene = score_predictions(
        {LEFT_OUT: values[:, list(measured.panel_rows)]}, labels
    ).pcc_per_gene
    return values, float(np.nanmean(per_gene))


if __name__ == "__main__":
    main()
