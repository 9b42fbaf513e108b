"""Predict one slide and write the result, or find the result of an identical earlier job."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ResultError, SlideError, SpotsError
from ..file_hash import compute_sha256_cached
from .slide_job import JobOutcome, SlideJob, TilePitch

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..inference.patch_features.precomputed_features import PrecomputedFeatures
    from ..inference.prediction import Prediction
    from ..inference.prediction_progress import PredictionUpdate
    from ..inference.target import Target
    from ..inference.zero_shot_genes import ZeroShotGenes
    from ..model import Checkpoint
    from ..quality.reliability import Reliability
    from ..slide import PixelSize, Slide
    from ..spatial.spots import Spots


DEFAULT_CHECKPOINT = "her2-breast"  # where no checkpoint is named

ProgressCallback = Callable[["PredictionUpdate"], None]
MessageCallback = Callable[[str], None]


def predict_slide(
    job: SlideJob,
    on_progress: ProgressCallback = lambda update: None,
    on_message: MessageCallback = lambda sentence: None,
) -> JobOutcome:
    """Predict on a slide and write the result, which is there whole or not at all.

    watch : is called after every batch. tell : takes what a person should know, one sentence at a
    time; the outcome keeps them too. The same job gives the same values to the last bit where the
    machine, the number of torch's threads and the tiles kept from before are the same.

    Raises DkanError.
    """
    from ..export.saved_result import SavedResult, SlideRecord, save_result
    from ..expression.readers.spot_files import read_spots
    from ..inference.predict import find_tissue_region, predict
    from ..inference.predictor import Predictor
    from ..model import load_checkpoint
    from ..quality.slide_checks import check_pixel_size
    from ..slide import open_slide
    from ..spatial.region_files import read_regions

    if job.spots is not None and job.regions is not None:
        raise SpotsError("Give one of --spots, --regions and --tissue, not several.")
    if job.spots is not None and job.features is not None:
        raise SpotsError(
            "--features are of tiles on a grid; give --regions with them, not --spots."
        )
    start, notes = time.perf_counter(), list[str]()

    def note(sentence: str) -> None:
        if sentence:
            notes.append(sentence)
            on_message(sentence)

    model = load_checkpoint(resolve_checkpoint(job))
    genes, new = _select_genes(model, job, note)
    with open_slide(job.slide, apply_icc=job.icc) as slide:
        spots = None if job.spots is None else read_spots(job.spots)
        size = _resolve_pixel_size(slide, job.mpp, spots)
        tissue = find_tissue_region(slide, size.mpp)
        regions = None
        if job.regions is not None:
            regions = read_regions(job.regions, slide.width, slide.height)
        note(check_pixel_size(model, size, slide.width, slide.height))
        ready = _load_features(job, model, slide, size.mpp)
        if ready is not None:
            note(ready.note)
            target = ready.target_from_region(regions)
        else:
            target = _create_target(job, model, slide, size.mpp, spots, regions, tissue)
        predictor = Predictor(
            slide, model, size.mpp, tissue, job.device, job.encoder_weights, job.store, ready
        )
        predictor.batch_sizes.fix(predictor.device)
        prediction = predict(predictor, target, size.origin, genes, on_progress, new)
        failed = int(prediction.failed_mask.sum())
        prediction = prediction.select_predicted()
        if not len(prediction.target):
            raise SlideError(
                f"None of the {failed:,} spots on {job.name} could be read: the slide is "
                "damaged; export it again."
            )
        prediction.provenance["parameters"] = job.parameters_json()
        reliability = _score_reliability(model, prediction)
        record = SlideRecord.from_slide(slide, size.mpp, size.origin)
        save_result(
            job.out, SavedResult(prediction, record, model.card, reliability, regions), slide
        )
    if failed:
        note(f"{failed:,} spots left out: {job.name} is damaged there.")
    note(predictor.token_cache.warning)
    return JobOutcome(
        job.slide,
        job.out,
        n_spots=len(prediction.target),
        n_genes=len(prediction.panel),
        seconds=time.perf_counter() - start,
        n_failed=failed,
        n_unreliable=None if reliability is None else int(reliability.unreliable.sum()),
        mean_reliability=None if reliability is None else float(reliability.score.mean()),
        notes=tuple(notes),
        timing=predictor.stage_timer.format_report(),
    )


def resolve_checkpoint(job: SlideJob) -> Path:
    """The file of a job's checkpoint."""
    from ..samples.bundled_checkpoints import find_bundled_checkpoint

    return job.checkpoint or find_bundled_checkpoint(DEFAULT_CHECKPOINT)


def validate_options(options: SlideJob) -> None:
    """Raises DkanError for what would be wrong on every slide: a checkpoint or a gene."""
    from ..model import load_checkpoint

    model = load_checkpoint(resolve_checkpoint(options))
    _select_genes(model, options, lambda sentence: None)


def _select_genes(
    model: Checkpoint, job: SlideJob, on_message: MessageCallback
) -> tuple[list[str] | None, ZeroShotGenes | None]:
    """The panel's genes that are wanted (None for all), and those from their text.

    An unknown gene is told before anything is computed.
    """
    wanted = None if job.genes is None else list(job.genes)
    model.panel.rows(wanted or [])
    if job.zero_shot is None:
        return wanted, None
    new = _load_zero_shot_genes(model, job.zero_shot, job.allow_unproven, on_message)
    if wanted is not None:
        wanted = list(dict.fromkeys([*wanted, *new.symbols_in_panel]))
    return wanted, new


def _load_zero_shot_genes(
    model: Checkpoint, source: str, allow_unproven: bool, on_message: MessageCallback
) -> ZeroShotGenes:
    """Genes of ``FILE`` or ``FILE:A,B``; what of them is in the panel is told and needs no text."""
    from ..inference.zero_shot_genes import load_zero_shot_genes, read_zero_shot_expectation

    file, _, named = source.rpartition(":")
    if not file or Path(source).exists() or Path(source).suffix == ".safetensors":
        file, named = source, ""
    symbols = [s.strip() for s in named.split(",") if s.strip()] or None
    new = load_zero_shot_genes(model, file, symbols, allow_unproven)
    if new.symbols_in_panel:
        shown = ", ".join(new.symbols_in_panel[:5]) + (
            ", ..." if len(new.symbols_in_panel) > 5 else ""
        )
        on_message(f"in the panel, predicted as trained: {shown}")
    on_message(f"{len(new.genes)} genes zero-shot: {read_zero_shot_expectation(model).summary}")
    return new


def _create_target(
    job: SlideJob,
    model: Checkpoint,
    slide: Slide,
    mpp: float,
    spots: Spots | None,
    regions: BaseGeometry | None,
    tissue: BaseGeometry,
) -> Target:
    from ..inference.target import target_from_region, target_from_spots

    if spots is not None:
        assert job.spots is not None
        return target_from_spots(spots, slide.width, slide.height, job.spots.name)
    if regions is None and tissue.is_empty:
        raise SpotsError(f"No tissue was found on {job.name}; give --regions or --spots instead.")
    pitch_um = {TilePitch.training: model.spot_pitch_um, TilePitch.dense: model.patch.um}[job.pitch]
    region = tissue if regions is None else regions
    limit = tissue if job.tissue_only else None
    return target_from_region(region, pitch_um, mpp, slide.width, slide.height, limit)


def _load_features(
    job: SlideJob, model: Checkpoint, slide: Slide, mpp: float
) -> PrecomputedFeatures | None:
    """Features from a file, where one is given."""
    from ..inference.patch_features.precomputed_features import load_precomputed_features

    if job.features is None:
        return None
    encoder, weights = job.features_encoder, job.encoder_weights
    return load_precomputed_features(job.features, slide, model, mpp, encoder, weights)


def _score_reliability(model: Checkpoint, prediction: Prediction) -> Reliability | None:
    from ..quality.reliability import score_reliability

    if model.reference is None:
        return None
    return score_reliability(model.reference, prediction.qc_features, prediction.tokens)


def _resolve_pixel_size(slide: Slide, mpp: float | None, spots: Spots | None) -> PixelSize:
    """What was given by hand, else the slide's metadata, else the pitch of the spot array, else
    what the objective lets one guess."""
    from ..expression.array_geometry import mpp_from_spots
    from ..slide import PixelSize

    if mpp is not None:
        return PixelSize(mpp, "entered by hand")
    stated = slide.pixel_size
    if stated is not None and not stated.is_estimated:
        return stated
    fitted = None if spots is None else mpp_from_spots(spots)
    if fitted is not None:
        return PixelSize(fitted, "spot array")
    if stated is None:
        raise SlideError(
            f"{slide.label} does not state its pixel size; give it with --mpp, "
            "in micrometres per pixel (0.25 for a 40x scan, 0.5 for 20x)."
        )
    return stated


def find_existing_result(job: SlideJob) -> JobOutcome | None:
    """The outcome of an earlier run of this very job; None where it has to be done.

    Its file has to be there and whole, and made of the same slide and checkpoint (by their
    hashes) with the same parameters.

    Raises DkanError when the slide or the checkpoint cannot be read.
    """
    from ..export.result_reader import load_result
    from ..slide import open_slide

    if not job.out.is_file():
        return None
    try:
        saved = load_result(job.out)
    except ResultError:  # cut short, or another program's
        return None
    record = saved.prediction.provenance
    if record.get("parameters") != job.parameters_json():
        return None
    if record.get("checkpoint_sha256") != compute_sha256_cached(resolve_checkpoint(job)):
        return None
    with open_slide(job.slide, apply_icc=job.icc) as slide:
        if record.get("slide_fingerprint") != slide.fingerprint():
            return None
    judged = saved.reliability
    return JobOutcome(
        job.slide,
        job.out,
        n_spots=len(saved.prediction.target),
        n_genes=len(saved.prediction.panel),
        n_unreliable=None if judged is None else int(judged.unreliable.sum()),
        mean_reliability=None if judged is None else float(judged.score.mean()),
        is_reused=True,
    )
