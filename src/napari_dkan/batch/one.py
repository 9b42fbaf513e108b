"""One slide, from its file to a written result: the same call for `predict` and `batch`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlideError, SpotsError
from .job import Outcome, Pitch, SlideJob

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..inference.job import Update
    from ..inference.prediction import Prediction
    from ..inference.ready.features import ReadyFeatures
    from ..inference.target import Target
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint
    from ..quality.reliability import Reliability
    from ..slide import PixelSize, Slide
    from ..spatial.spots import Spots

BUNDLED = "her2-breast"  # where no checkpoint is named

Watch = Callable[["Update"], None]
Tell = Callable[[str], None]


def run_one(
    job: SlideJob,
    watch: Watch = lambda update: None,
    tell: Tell = lambda sentence: None,
) -> Outcome:
    """Predict on a slide and write the result, which is there whole or not at all.

    watch : is called after every batch. tell : takes what a person should know, one sentence at a
    time; the outcome keeps them too. The same job gives the same values to the last bit where the
    machine, the number of torch's threads and the tiles kept from before are the same.

    Raises DkanError.
    """
    from ..export.saved import Saved, SlideRecord, save
    from ..expression.spotfile import read_spots
    from ..inference.engine import Predictor
    from ..inference.predict import predict, tissue_region
    from ..model import load_checkpoint
    from ..quality.scale_check import check_scale
    from ..slide import open_slide
    from ..spatial.regions import read_regions

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
            tell(sentence)

    model = load_checkpoint(checkpoint_of(job))
    genes, new = _genes(model, job, note)
    with open_slide(job.slide, icc=job.icc) as slide:
        spots = None if job.spots is None else read_spots(job.spots)
        size = _pixel_size(slide, job.mpp, spots)
        tissue = tissue_region(slide, size.mpp)
        regions = None
        if job.regions is not None:
            regions = read_regions(job.regions, slide.width, slide.height)
        note(check_scale(model, size, slide.width, slide.height))
        ready = _ready(job, model, slide, size.mpp)
        if ready is not None:
            note(ready.note)
            target = ready.target(regions)
        else:
            target = _target(job, model, slide, size.mpp, spots, regions, tissue)
        predictor = Predictor(
            slide, model, size.mpp, tissue, job.device, job.encoder_weights, job.store, ready
        )
        predictor.steady_batches()
        prediction = predict(predictor, target, size.origin, genes, watch, new)
        failed = int(prediction.failed.sum())
        prediction = prediction.finished()
        if not len(prediction.target):
            raise SlideError(
                f"None of the {failed:,} spots on {job.name} could be read: the slide is "
                "damaged; export it again."
            )
        prediction.provenance["parameters"] = job.parameters()
        reliability = _judge(model, prediction)
        record = SlideRecord.of(slide, size.mpp, size.origin)
        save(job.out, Saved(prediction, record, model.card, reliability, regions), slide)
    if failed:
        note(f"{failed:,} spots left out: {job.name} is damaged there.")
    note(predictor.kept.warning)
    return Outcome(
        job.slide,
        job.out,
        spots=len(prediction.target),
        genes=len(prediction.panel),
        seconds=time.perf_counter() - start,
        failed=failed,
        unreliable=None if reliability is None else int(reliability.unreliable.sum()),
        reliability=None if reliability is None else float(reliability.score.mean()),
        notes=tuple(notes),
        timing=predictor.stages.report(),
    )


def checkpoint_of(job: SlideJob) -> Path:
    """The file of a job's checkpoint."""
    from ..samples.bundled import bundled_checkpoint

    return job.checkpoint or bundled_checkpoint(BUNDLED)


def check(options: SlideJob) -> None:
    """Raises DkanError for what would be wrong on every slide: a checkpoint or a gene."""
    from ..model import load_checkpoint

    model = load_checkpoint(checkpoint_of(options))
    _genes(model, options, lambda sentence: None)


def _genes(
    model: Checkpoint, job: SlideJob, tell: Tell
) -> tuple[list[str] | None, ZeroShotGenes | None]:
    """The panel's genes that are wanted (None for all), and those from their text.

    An unknown gene is told before anything is computed.
    """
    wanted = None if job.genes is None else list(job.genes)
    model.panel.rows(wanted or [])
    if job.zero_shot is None:
        return wanted, None
    new = _zero_shot(model, job.zero_shot, job.allow_unproven, tell)
    if wanted is not None:
        wanted = list(dict.fromkeys([*wanted, *new.in_panel]))
    return wanted, new


def _zero_shot(model: Checkpoint, asked: str, allow_unproven: bool, tell: Tell) -> ZeroShotGenes:
    """Genes of ``FILE`` or ``FILE:A,B``; what of them is in the panel is told and needs no text."""
    from ..inference.zero_shot import expectation, zero_shot_genes

    file, _, named = asked.rpartition(":")
    if not file or Path(asked).exists() or Path(asked).suffix == ".safetensors":
        file, named = asked, ""
    symbols = [s.strip() for s in named.split(",") if s.strip()] or None
    new = zero_shot_genes(model, file, symbols, allow_unproven)
    if new.in_panel:
        shown = ", ".join(new.in_panel[:5]) + (", ..." if len(new.in_panel) > 5 else "")
        tell(f"in the panel, predicted as trained: {shown}")
    tell(f"{len(new.genes)} genes zero-shot: {expectation(model).sentence}")
    return new


def _target(
    job: SlideJob,
    model: Checkpoint,
    slide: Slide,
    mpp: float,
    spots: Spots | None,
    regions: BaseGeometry | None,
    tissue: BaseGeometry,
) -> Target:
    from ..inference.target import region_target, spots_target

    if spots is not None:
        assert job.spots is not None
        return spots_target(spots, slide.width, slide.height, job.spots.name)
    if regions is None and tissue.is_empty:
        raise SpotsError(f"No tissue was found on {job.name}; give --regions or --spots instead.")
    pitch_um = {Pitch.training: model.spot_pitch_um, Pitch.dense: model.patch.um}[job.pitch]
    region = tissue if regions is None else regions
    limit = tissue if job.tissue_only else None
    return region_target(region, pitch_um, mpp, slide.width, slide.height, limit)


def _ready(job: SlideJob, model: Checkpoint, slide: Slide, mpp: float) -> ReadyFeatures | None:
    """Features from a file, where one is given."""
    from ..inference.ready.fit import ready_features

    if job.features is None:
        return None
    encoder, weights = job.features_encoder, job.encoder_weights
    return ready_features(job.features, slide, model, mpp, encoder, weights)


def _judge(model: Checkpoint, prediction: Prediction) -> Reliability | None:
    from ..quality.reliability import judge

    if model.reference is None:
        return None
    return judge(model.reference, prediction.evidence, prediction.tokens)


def _pixel_size(slide: Slide, mpp: float | None, spots: Spots | None) -> PixelSize:
    """What was given by hand, else the slide's metadata, else the pitch of the spot array, else
    what the objective lets one guess."""
    from ..expression.arrayfit import array_mpp
    from ..slide import PixelSize

    if mpp is not None:
        return PixelSize(mpp, "entered by hand")
    stated = slide.pixel_size
    if stated is not None and not stated.estimated:
        return stated
    fitted = None if spots is None else array_mpp(spots)
    if fitted is not None:
        return PixelSize(fitted, "spot array")
    if stated is None:
        raise SlideError(
            f"{slide.label} does not state its pixel size; give it with --mpp, "
            "in micrometres per pixel (0.25 for a 40x scan, 0.5 for 20x)."
        )
    return stated
