"""Locate the slide and checkpoint of a saved result and restore its map, regions and view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray

from ....errors import CheckpointError
from ....export.result_reader import load_result
from ....export.saved_result import SavedReliability, SavedResult, find_result_slide
from ....inference.prediction import Prediction
from ....samples.bundled_checkpoints import list_bundled_checkpoints
from ....slide import PixelSize, Slide
from ...jobs.target_from_layers import make_shapes_layer
from ...layers.prediction_layers import GridOverlay, SpotsOverlay
from ...session.prediction_overlay import GeneDecoder, PredictionOverlay
from ...session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide, make_slide_layer
from ...session.user_history import list_recent_checkpoints
from ...session.viewer_session import ViewerSession
from ...session.viewer_settings import ContrastLimits
from ...widgets.gl_compat import import_torch

if TYPE_CHECKING:
    from ....expression.panel import Panel
    from ....model import Checkpoint


@dataclass(frozen=True, eq=False)
class LocatedResult:
    """A result read from a file, with what there is of its surroundings.

    shown : its slide where it is open already. slide : else, opened from its file; None where it
    is not to be found. checkpoint : None where no file has its hash.
    """

    path: Path
    saved: SavedResult
    open_slide: ViewerSlide | None
    slide: Slide | None
    checkpoint: Checkpoint | None


def locate_result(
    path: Path, slides: Iterable[ViewerSlide], current_checkpoint: Checkpoint | None
) -> LocatedResult:
    """Read a result, and find its slide (open in the window, where it was, beside the file) and
    its checkpoint (the one in use, bundled, used lately).

    Raises ResultError when the file is not one of ours, or damaged.
    """
    saved = load_result(path)
    shown = next(
        (s for s in slides if s.slide.fingerprint() == saved.slide_record.fingerprint), None
    )
    slide = None if shown is not None else find_result_slide(saved, path)
    checksum = str(saved.prediction.provenance.get("checkpoint_sha256", ""))
    if current_checkpoint is None or current_checkpoint.sha256 != checksum:
        current_checkpoint = find_checkpoint(checksum)
    return LocatedResult(path, saved, shown, slide, current_checkpoint)


def find_checkpoint(checksum: str) -> Checkpoint | None:
    """The checkpoint with this SHA-256, of those that come along or were used lately."""
    if not checksum:
        return None
    import_torch()
    from ....file_hash import compute_sha256
    from ....model import load_checkpoint

    for path in (*list_bundled_checkpoints(), *list_recent_checkpoints()):
        try:
            if compute_sha256(path) == checksum:
                return load_checkpoint(path)
        except (CheckpointError, OSError):
            continue  # it is as good as gone
    return None


THUMBNAIL_KEY = "napari-dkan overview"  # key of its layer's metadata, so that it is not a slide


@dataclass(eq=False)
class RestoredResult:
    """A result in the window. picture : in the slide's place as long as that is not here."""

    saved: SavedResult
    overlay: PredictionOverlay
    regions: Shapes | None
    slide: ViewerSlide | None
    thumbnail: Image | None = None


def restore_result(session: ViewerSession, found: LocatedResult) -> RestoredResult:
    """Bring it back, all but what is not here; quick, for the GUI thread.

    The session takes its checkpoint, gene, pinned genes, limits and colours.
    """
    saved, checkpoint = found.saved, found.checkpoint
    if checkpoint is not None and checkpoint is not session.checkpoint:
        session.set_checkpoint(checkpoint)
    slide = found.open_slide
    if slide is None and found.slide is not None:
        slide = add_slide_layer(session, found.slide, saved)
    if slide is not None:
        session.viewer_slides.set_current(slide)
    if slide is not None and slide.pixel_size is None:
        session.viewer_slides.set_pixel_size(
            slide, PixelSize(saved.slide_record.mpp, saved.slide_record.mpp_origin)
        )
    overlay = make_overlay(found, saved.slide_record.mpp if slide is None else slide.mpp)
    picture = _add_thumbnail(session, saved) if slide is None else None
    session.add_overlay(overlay, slide)
    regions = _add_regions(session, saved, slide)
    _apply_view_settings(session, saved, overlay)
    session.viewer.layers.selection.active = overlay.layer if slide is None else slide.layer
    _apply_camera(session, saved, slide)
    return RestoredResult(saved, overlay, regions, slide, picture)


def add_slide_layer(session: ViewerSession, slide: Slide, saved: SavedResult) -> ViewerSlide:
    """Lay the slide under everything else."""
    size = PixelSize(saved.slide_record.mpp, saved.slide_record.mpp_origin)
    data, options, _ = make_slide_layer(slide, size)
    session.viewer.layers.insert(0, Image(data, **options))
    return next(s for s in session.slides if s.slide is slide)


def attach_slide(session: ViewerSession, restored: RestoredResult, slide: ViewerSlide) -> None:
    """The slide of a result has come: its map lies on it from now on."""
    restored.slide = slide
    layers, mine, record = (
        session.viewer.layers,
        restored.overlay.layer,
        restored.saved.slide_record,
    )
    if slide.pixel_size is None:
        session.viewer_slides.set_pixel_size(slide, PixelSize(record.mpp, record.mpp_origin))
    grid = restored.overlay.prediction.target.grid
    drawn_at = float(mine.scale[-1]) / (1.0 if grid is None else grid.pitch)  # um per px
    for layer in (mine, restored.regions):
        if layer is not None and layer in layers:
            layer.scale = np.asarray(layer.scale) * (slide.mpp / drawn_at)
            layer.translate = np.asarray(layer.translate) * (slide.mpp / drawn_at)
            session.layers.attach(slide, layer)
    at = layers.index(slide.layer)
    if at > layers.index(mine):
        layers.move(at, layers.index(mine))
    if session.settings.hatch_unreliable:  # anew, on the slide
        session.change_settings(hatch_unreliable=False)
        session.change_settings(hatch_unreliable=True)
    if restored.thumbnail is not None and restored.thumbnail in layers:
        layers.remove(restored.thumbnail)
    restored.thumbnail = None


def make_overlay(found: LocatedResult, mpp: float) -> PredictionOverlay:
    """Its map, whose layer is not in any viewer yet. mpp : um per level-0 px to draw it at."""
    saved, checkpoint = found.saved, found.checkpoint
    prediction = (
        saved.prediction if checkpoint is not None else _drop_incomplete_genes(saved.prediction)
    )
    decode = _make_decode_function(checkpoint, prediction.panel)
    what = f"{saved.slide_record.name}, {found.path.stem}"
    opacity = 0.65 if saved.view_settings is None else saved.view_settings.opacity
    overlay: PredictionOverlay
    if prediction.target.grid is not None:
        overlay = GridOverlay(prediction, decode, mpp, what, opacity)
    else:
        size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
        if prediction.target.spots.array_coords is None:
            size = prediction.provenance["patch_um"]  # clicked spots show what was looked at
        overlay = SpotsOverlay(prediction, decode, mpp, size, what, opacity)
    overlay.from_file = True
    if isinstance(saved.reliability, SavedReliability):
        overlay.reference = saved.reliability
    elif checkpoint is not None:
        overlay.reference = checkpoint.reference
    return overlay


def _drop_incomplete_genes(prediction: Prediction) -> Prediction:
    """The genes that all of its spots have: without its checkpoint no other can be had."""
    lacking = set(prediction.find_incomplete_columns().tolist())
    if not lacking:
        return prediction
    kept = [i for i in range(len(prediction.panel)) if i not in lacking]
    genes = tuple(prediction.panel.genes[i] for i in kept)
    known = tuple(s for s in prediction.zero_shot_symbols if s in {g.symbol for g in genes})
    panel = type(prediction.panel)(genes)
    return replace(
        prediction, panel=panel, values=prediction.values[:, kept], zero_shot_symbols=known
    )


def _make_decode_function(checkpoint: Checkpoint | None, panel: Panel) -> GeneDecoder:
    """What decodes genes that were not decoded when the result was saved, if anything can."""

    def decode(tokens: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
        from ....inference.gene_decoder import GeneDecoder

        wanted = [panel.symbols[i] for i in columns]
        if checkpoint is None or not all(g in checkpoint.panel for g in wanted):
            raise CheckpointError(
                f"{', '.join(wanted[:4])}: these were not decoded when the result was saved, and "
                "its checkpoint cannot do it now; predict the map again."
            )
        rows = [checkpoint.panel.row(g) for g in wanted]
        return GeneDecoder(checkpoint.network).decode(tokens, rows)

    return decode


def _add_thumbnail(session: ViewerSession, saved: SavedResult) -> Image | None:
    """The small picture that travels with a result, where the slide would be."""
    if saved.overview is None:
        return None
    side = saved.slide_record.mpp / saved.overview.scale
    middle = (side - saved.slide_record.mpp) / 2  # of its first pixel
    layer = Image(
        saved.overview.rgb,
        rgb=True,
        name=f"{saved.slide_record.name} (small picture; the slide is not here)",
        scale=(side, side),
        translate=(middle, middle),
        units=MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        metadata={THUMBNAIL_KEY: True},
    )
    session.viewer.layers.insert(0, layer)
    return layer


def _add_regions(
    session: ViewerSession, saved: SavedResult, slide: ViewerSlide | None
) -> Shapes | None:
    if saved.regions is None or saved.regions.is_empty:
        return None
    mpp = saved.slide_record.mpp if slide is None else slide.mpp
    layer = make_shapes_layer(saved.regions, mpp, f"regions, {saved.slide_record.name}", "#00e5ff")
    if slide is not None:
        session.layers.attach(slide, layer)
    session.viewer.layers.append(layer)
    return layer


def _apply_view_settings(
    session: ViewerSession, saved: SavedResult, overlay: PredictionOverlay
) -> None:
    """Gene, pinned genes, limits and colours, as far as this window knows them."""
    view, panel = saved.view_settings, overlay.prediction.panel
    if view is not None:
        session.change_settings(
            colormap=view.colormap,
            opacity=view.opacity,
            hatch_unreliable=view.hatch,
            contrast_limits=ContrastLimits(view.limits),
        )
    gene = panel.symbols[0] if view is None or view.gene not in panel else view.gene
    if view is None and session.gene in panel:
        gene = session.gene
    pinned = () if view is None else tuple(g for g in view.pinned if g in panel)
    if pinned:
        session.pinned = pinned
        session.pinned_changed.emit()
    session.set_gene(gene or "")


def _apply_camera(session: ViewerSession, saved: SavedResult, slide: ViewerSlide | None) -> None:
    """Look where it was looked at, else at the whole map."""
    view, viewer = saved.view_settings, session.viewer
    if view is None or view.centre is None or not view.zoom:
        viewer.reset_view()
        return
    x, y = view.centre
    mpp = saved.slide_record.mpp
    world = (y * mpp, x * mpp) if slide is None else slide.layer.data_to_world((y, x))
    viewer.scene.camera.center = (0.0, float(world[-2]), float(world[-1]))
    viewer.scene.camera.zoom = view.zoom


def show_saved_spot(session: ViewerSession, world: tuple[float, float]) -> bool:
    """Where a reopened map was clicked (y, x) whose checkpoint or slide is not here: take the
    spot from the map. False leaves the click to predicting."""
    from ....export.saved_result import SavedReliability
    from ...layers.reliability_overlay import get_reliability

    order = list(session.viewer.layers)
    for overlay in sorted(session.overlays, key=lambda o: -order.index(o.layer)):
        prediction = overlay.prediction
        if not (overlay.from_file and overlay.layer.visible) or _is_predictable(
            session, prediction
        ):
            continue
        row = overlay.row_at(world)
        if row is None:
            continue
        rows, reference = np.array([row]), overlay.reference
        known = (
            get_reliability(prediction, reference, rows)
            if isinstance(reference, SavedReliability)
            else None
        )
        session.message.show("")
        session.set_spot(
            prediction.take(rows), known if isinstance(known, SavedReliability) else None
        )
        return True
    return False


def _is_predictable(session: ViewerSession, prediction: Prediction) -> bool:
    """Whether a click predicts just what the map shows: its checkpoint and slide are chosen."""
    checkpoint, slide, by = session.checkpoint, session.slide, prediction.provenance
    if checkpoint is None or slide is None:
        return False
    chosen = checkpoint.sha256, slide.slide.fingerprint()
    return (by.get("checkpoint_sha256"), by.get("slide_fingerprint")) == chosen
