"""Predict one slide and write the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlideError, SpotsError
from .slide_job import JobOutcome, SlideJob, TilePitch

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..expression.readers.read_account import ReadAccount
    from ..inference.prediction import Prediction
    from ..inference.prediction_progress import PredictionUpdate
    from ..inference.predictor import Predictor
    from ..inference.target import Target
    from ..inference.zero_shot_genes import ZeroShotGenes
    from ..model import Checkpoint
    from ..quality.reliability import Reliability
    from ..slide import PixelSize, Slide
    from ..slide.pixel_size import SizeClaim
    from ..spatial.spots import Spots


DEFAULT_CHECKPOINT = "her2-breast"

ProgressCallback = Callable[["PredictionUpdate"], None]
MessageCallback = Callable[[str], None]


def predict_slide(
    job: SlideJob,
    on_progress: ProgressCallback = lambda update: None,
    on_message: MessageCallback = lambda sentence: None,
) -> JobOutcome:
    """Predict on a slide and write the result atomically.

    The same job gives the same values to the last bit, provided that the machine, the number of
    torch's threads and the cached tiles are the same.

    Parameters
    ----------
    on_progress
        Called after every batch.
    on_message
        Called with sentences for the user, which are also in the notes of the outcome.

    Raises
    ------
    DkanError
        The job cannot be done.
    """
    from ..export.saved_result import SavedResult, SlideRecord, save_result

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

    checkpoint = _load_once(resolve_checkpoint(job))
    genes = _select_genes(checkpoint, job, note)
    with open_job_slide(job) as slide:
        task = _prepare_prediction(job, checkpoint, slide, note)
        prediction, n_failed = _predict_target(job, task, genes, on_progress)
        reliability = _score_reliability(checkpoint, prediction)
        record = SlideRecord.from_slide(slide, task.pixel_size.mpp, task.pixel_size.origin)
        result = SavedResult(prediction, record, checkpoint.card, reliability, task.regions)
        save_result(job.out, result, slide)
    if n_failed:
        note(f"{n_failed:,} spots left out: {job.name} is damaged there.")
    note(task.predictor.token_cache.warning)
    return JobOutcome(
        job.slide,
        job.out,
        n_spots=len(prediction.target),
        n_genes=len(prediction.panel),
        seconds=time.perf_counter() - start,
        n_failed=n_failed,
        n_unreliable=None if reliability is None else int(reliability.unreliable.sum()),
        mean_reliability=None if reliability is None else float(reliability.score.mean()),
        notes=tuple(notes),
        timing=task.predictor.stage_timer.format_report(),
    )


@dataclass(frozen=True)
class _PredictionTask:
    """A predictor of a slide and the target to predict."""

    predictor: Predictor
    target: Target
    pixel_size: PixelSize
    regions: BaseGeometry | None
    account: ReadAccount


def _prepare_prediction(
    job: SlideJob, checkpoint: Checkpoint, slide: Slide, note: MessageCallback
) -> _PredictionTask:
    from ..expression.tables.spot_files import read_spots
    from ..inference.patch_features.precomputed_features import load_precomputed_features
    from ..inference.predict import find_tissue_region
    from ..inference.predictor import Predictor
    from ..inference.section_pixel_size import find_qupath_mpp
    from ..quality.slide_checks import check_pixel_size
    from ..spatial.region_files import RegionObjects, read_regions

    spots = None
    if job.spots is not None:
        qupath_mpp = find_qupath_mpp(slide.pixel_size, job.mpp)
        spots = read_spots(job.spots, qupath_mpp, job.library)
    claims = [] if spots is None else _claims_of_spots(job, spots)
    size = find_pixel_size(slide, job.mpp, claims)
    tissue = find_tissue_region(slide, size.mpp)
    regions = None
    if job.regions is not None:
        objects = None if job.region_objects is None else RegionObjects(job.region_objects)
        regions = read_regions(job.regions, slide.scan_area, objects, note)
    note(check_pixel_size(checkpoint, size, slide.width, slide.height))
    features = None
    if job.features is not None:
        encoder, weights = job.features_encoder, job.encoder_weights
        features = load_precomputed_features(
            job.features, slide, checkpoint, size.mpp, encoder, weights
        )
        note(features.note)
        target = features.target_from_region(regions)
    else:
        target = _create_target(job, checkpoint, slide, size.mpp, spots, regions, tissue)
    predictor = Predictor(
        slide, checkpoint, size.mpp, tissue, job.device, job.encoder_weights, job.store, features
    )
    predictor.batch_sizes.fix(predictor.device)
    account = _account_for_job(job, slide, size, spots)
    return _PredictionTask(predictor, target, size, regions, account)


def _account_for_job(
    job: SlideJob, slide: Slide, size: PixelSize, spots: Spots | None
) -> ReadAccount:
    from ..expression.readers.read_account import ReadAccount, log_account
    from ..inference.slide_account import account_for_slide

    account = ReadAccount(job.name)
    if spots is not None:
        account = ReadAccount(
            str(job.spots),
            spots_read=len(spots),
            spots_left_out=spots.left_out,
            notes=spots.notes,
        )
        log_account(account)
    for what, path in (("inside the regions", job.regions), ("the tiles", job.features)):
        if path is not None:
            account = account.add_note(f"predicted {what} of {path.name}")
    return account_for_slide(account, slide, size.mpp, size.origin)


def _predict_target(
    job: SlideJob,
    task: _PredictionTask,
    genes: tuple[list[str] | None, ZeroShotGenes | None],
    on_progress: ProgressCallback,
) -> tuple[Prediction, int]:
    """Predict the target; return the spots that could be read, and how many could not."""
    from ..inference.predict import predict

    symbols, zero_shot_genes = genes
    origin = task.pixel_size.origin
    prediction = predict(
        task.predictor,
        task.target,
        origin,
        symbols,
        on_progress,
        zero_shot_genes,
        with_spread=task.predictor.network.draws_samples,
    )
    n_failed = int(prediction.failed_mask.sum())
    prediction = prediction.select_predicted()
    if not len(prediction.target):
        raise SlideError(
            f"None of the {n_failed:,} spots on {job.name} could be read: the slide is "
            "damaged; export it again."
        )
    prediction.provenance["parameters"] = job.parameters_json()
    prediction.provenance["read_account"] = task.account.to_dict()
    return prediction, n_failed


def resolve_checkpoint(job: SlideJob) -> Path:
    """Return the checkpoint file of a job."""
    from ..samples.bundled_checkpoints import find_bundled_checkpoint

    return job.checkpoint or find_bundled_checkpoint(DEFAULT_CHECKPOINT)


def _load_once(path: Path) -> Checkpoint:
    """Load a checkpoint; that of the slide before is used again while its file is unchanged.

    Its network is the same object then, so that its trunks are folded once as well.
    """
    try:
        status = path.stat()
    except OSError:  # loading it says what is wrong
        return _load_version(path, 0, 0)
    return _load_version(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _load_version(path: Path, size: int, mtime_ns: int) -> Checkpoint:
    from ..model import load_checkpoint

    return load_checkpoint(path)


def validate_options(options: SlideJob) -> None:
    """Raise DkanError if a checkpoint or a gene would fail on every slide."""
    checkpoint = _load_once(resolve_checkpoint(options))
    _select_genes(checkpoint, options, lambda sentence: None)


def _select_genes(
    checkpoint: Checkpoint, job: SlideJob, on_message: MessageCallback
) -> tuple[list[str] | None, ZeroShotGenes | None]:
    """Return the requested genes of the panel (None for all), and the zero-shot genes.

    An unknown gene raises before anything is computed.
    """
    symbols = None if job.genes is None else list(job.genes)
    checkpoint.panel.rows(symbols or [])
    if job.zero_shot is None:
        return symbols, None
    zero_shot_genes = _load_zero_shot_genes(
        checkpoint, job.zero_shot, job.allow_unproven, on_message
    )
    if symbols is not None:
        symbols = list(dict.fromkeys([*symbols, *zero_shot_genes.symbols_in_panel]))
    return symbols, zero_shot_genes


def _load_zero_shot_genes(
    checkpoint: Checkpoint, source: str, allow_unproven: bool, on_message: MessageCallback
) -> ZeroShotGenes:
    """Load genes from ``FILE`` or ``FILE:A,B``, and report those that are in the panel."""
    from ..inference.zero_shot_genes import load_zero_shot_genes, read_zero_shot_expectation

    file, _, names = source.rpartition(":")
    if not file or Path(source).exists() or Path(source).suffix == ".safetensors":
        file, names = source, ""
    symbols = [s.strip() for s in names.split(",") if s.strip()] or None
    genes = load_zero_shot_genes(checkpoint, file, symbols, allow_unproven)
    in_panel = genes.symbols_in_panel
    if in_panel:
        shown = ", ".join(in_panel[:5]) + (", ..." if len(in_panel) > 5 else "")
        on_message(f"in the panel, predicted as trained: {shown}")
    expectation = read_zero_shot_expectation(checkpoint).summary
    on_message(f"{len(genes.genes)} genes zero-shot: {expectation}")
    return genes


def _create_target(
    job: SlideJob,
    checkpoint: Checkpoint,
    slide: Slide,
    mpp: float,
    spots: Spots | None,
    regions: BaseGeometry | None,
    tissue: BaseGeometry,
) -> Target:
    from ..inference.target import target_from_region, target_from_spots

    if spots is not None:
        assert job.spots is not None
        size = slide.width, slide.height
        return target_from_spots(spots, *size, job.spots.name, slide.scan_area)
    if regions is None and tissue.is_empty:
        raise SpotsError(f"No tissue was found on {job.name}; give --regions or --spots instead.")
    is_dense = job.pitch is TilePitch.dense
    pitch_um = checkpoint.patch.um if is_dense else checkpoint.spot_pitch_um
    region = tissue if regions is None else regions
    limit = tissue if job.tissue_only else None
    return target_from_region(region, pitch_um, mpp, slide.width, slide.height, limit)


def _score_reliability(checkpoint: Checkpoint, prediction: Prediction) -> Reliability | None:
    from ..quality.reliability import score_reliability

    if checkpoint.reference is None:
        return None
    return score_reliability(checkpoint.reference, prediction.qc_features, prediction.tokens)


def open_job_slide(job: SlideJob) -> Slide:
    """Open the slide of a job; raises SlideError."""
    from ..slide import open_slide

    return open_slide(
        job.slide, apply_icc=job.icc, image=job.image, whole_glass=bool(job.whole_glass)
    )


def find_pixel_size(slide: Slide, mpp: float | None, claims: Sequence[SizeClaim] = ()) -> PixelSize:
    """Return the pixel size: entered, of the slide, or by the files of spots.

    Raises
    ------
    SlideError
        If there is none, or two of them are more than 10 % apart.
    """
    from ..slide.pixel_size import resolve_pixel_size

    pixel_size = resolve_pixel_size(slide.label, slide.pixel_size, claims, mpp)
    if pixel_size is None:
        raise SlideError(
            f"{slide.label} does not state its pixel size; give it with --mpp, "
            "in micrometres per pixel (0.25 for a 40x scan, 0.5 for 20x)."
        )
    return pixel_size


def _claims_of_spots(job: SlideJob, spots: Spots) -> list[SizeClaim]:
    """Return the pixel sizes that a file of spots states, and that of its array."""
    from ..expression.array_geometry import mpp_from_spots
    from ..expression.readers.single_section import read_stated_mpp
    from ..slide.pixel_size import SizeClaim

    stated, origin = (None, "") if job.spots is None else read_stated_mpp(job.spots, job.library)
    fitted = mpp_from_spots(spots)
    claims = [] if stated is None else [SizeClaim(stated, origin)]
    if fitted is not None and origin != "spot array":
        claims.append(SizeClaim(fitted, "spot array"))
    return claims
