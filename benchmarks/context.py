"""What the way of asking changes: array spots, clicks at the same places, a dense map.

The network was trained on array spots that see each other. A click sees the tissue tiles of a
grid instead, and a dense map has another spacing. Prints how far their numbers are apart and,
where counts are measured, each one's PCC-ALL. The bundled checkpoint was trained on this section,
so only the differences mean something.
"""

from __future__ import annotations

import numpy as np


def main() -> None:
    from napari_dkan.errors import DkanError
    from napari_dkan.expression.label_scale import array_coords_from_section, labels_from_section
    from napari_dkan.expression.readers.layouts.her2st_sections import read_her2st_section
    from napari_dkan.inference.predict import find_tissue_region, predict
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.inference.target import Target, TargetKind, target_from_region
    from napari_dkan.model import load_checkpoint
    from napari_dkan.samples import fetch_her2st_section, find_bundled_checkpoint
    from napari_dkan.slide import open_slide
    from napari_dkan.spatial.spots import Spots
    from napari_dkan.training.prediction_scores import score_predictions

    try:
        paths = fetch_her2st_section("C3")
    except DkanError as error:
        print(error)
        return
    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    data = read_her2st_section(paths.root, "C3")
    labels = labels_from_section(data, checkpoint.panel, checkpoint.label_scale)
    mpp, kept = float(data.uns["mpp"]), labels.rows
    xy = data.obsm["spatial"][kept]
    array = array_coords_from_section(data)[kept]
    with open_slide(paths.image) as slide:
        tissue = find_tissue_region(slide, mpp)
        predictor = Predictor(slide, checkpoint, mpp, tissue)
        values = {
            "array spots": predict(predictor, Target(TargetKind.ARRAY, Spots(xy, array))).values,
            "clicks": predict(predictor, Target(TargetKind.POINTS, Spots(xy))).values,
        }
        for name, pitch in (
            ("training-pitch map, nearest tile", checkpoint.spot_pitch_um),
            ("dense map, nearest tile", checkpoint.patch.um),
        ):
            target = target_from_region(tissue, pitch, mpp, slide.width, slide.height, tissue)
            tiles = predict(predictor, target)
            distance = np.linalg.norm(xy[:, None] - target.spots.xy[None], axis=2)
            values[name] = tiles.values[distance.argmin(axis=1)]
    reference = values["array spots"]
    print(
        "\n| asked as | mean difference | correlation with array spots, mean of genes | PCC-ALL |"
    )
    print("|---|---|---|---|")
    for name, predicted in values.items():
        apart = np.abs(predicted - reference).mean()
        same = score_predictions({"C3": predicted}, {"C3": reference}).to_summary()["pcc_all"]
        pcc = score_predictions({"C3": predicted}, {"C3": labels.values}).to_summary()["pcc_all"]
        print(f"| {name} | {apart:.4f} | {same:.3f} | {pcc:.3f} |")


if __name__ == "__main__":
    main()
