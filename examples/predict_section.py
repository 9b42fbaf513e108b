"""Predict a whole section from a script: the same core calls as the window, no window.

    python examples/predict_section.py slide.svs -o prediction.h5ad
    python examples/predict_section.py      # predicts the synthetic section

The result is an AnnData; ``scanpy.pl.spatial(scanpy.read_h5ad("prediction.h5ad"), color="ERBB2")``
shows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_dkan.export.anndata_export import to_anndata, write_h5ad
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.samples import find_bundled_checkpoint, get_synthetic_section
from napari_dkan.slide import open_slide


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("slide", type=Path, nargs="?", help="default: the synthetic section")
    ask.add_argument("-o", "--out", type=Path, default=Path("prediction.h5ad"))
    ask.add_argument("--checkpoint", type=Path, help="default: the bundled one that fits")
    ask.add_argument("--mpp", type=float, help="um per px, where the slide does not say")
    given = ask.parse_args()

    path = given.slide or get_synthetic_section().image
    fitting = "her2-breast" if given.slide else "synthetic"
    checkpoint = load_checkpoint(given.checkpoint or find_bundled_checkpoint(fitting))
    with open_slide(path) as slide:
        mpp = given.mpp or slide.mpp
        if mpp is None:
            ask.error(f"{path} does not state its pixel size; give --mpp")
        tissue = find_tissue_region(slide, mpp)
        target = target_from_region(
            tissue, checkpoint.spot_pitch_um, mpp, slide.width, slide.height
        )
        predictor = Predictor(slide, checkpoint, mpp, tissue)
        prediction = predict(predictor, target)
        write_h5ad(to_anndata(prediction, slide), given.out)
    print(f"{len(target)} tiles x {len(prediction.panel)} genes, written to {given.out}")


if __name__ == "__main__":
    main()
