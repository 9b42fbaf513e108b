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
from ....export.saved_result import SavedReliability, SavedResult, SlideRecord, find_result_slide
from ....inference.prediction import Prediction
from ....samples.bundled_checkpoints import list_bundled_checkpoints
from ....slide import PixelSize, Slide
from ...jobs.target_from_layers import make_shapes_layer
from ...layers.prediction_layers import GridOverlay, SpotsOverlay
from ...layers.tile_map_layer import TileMapLayer
from ...session.prediction_overlay import GeneDecoder, PredictionOverlay
from ...session.slide_arrangement import fit_slide
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
    """A result read from a file, with its slide and checkpoint as far as they are found.

    Attributes
    ----------
    path : Path
    saved : SavedResult
    open_slide : ViewerSlide or None
        The slide, if it is open in the window.
    slide : Slide or None
        Else the slide opened from its file; None where it is not found.
    checkpoint : Checkpoint or None
        None where no known file has its hash.
    """

    path: Path
    saved: SavedResult
    open_slide: ViewerSlide | None
    slide: Slide | None
    checkpoint: Checkpoint | None


def locate_result(
    path: Path, slides: Iterable[ViewerSlide], current_checkpoint: Checkpoint | None
) -> LocatedResult:
    """Read a result and find its slide and checkpoint.

    The slide is searched in the window, at its recorded path and next to the file; the
    checkpoint is the current one, a bundled or a recently used one.

    Raises
    ------
    ResultError
        The file is not a saved result, or is damaged.
    """
    saved = load_result(path)
    open_slide = next(
        (s for s in slides if s.slide.fingerprint() == saved.slide_record.fingerprint), None
    )
    slide = None if open_slide is not None else find_result_slide(saved, path)
    checksum = str(saved.prediction.provenance.get("checkpoint_sha256", ""))
    if current_checkpoint is None or current_checkpoint.sha256 != checksum:
        current_checkpoint = find_checkpoint(checksum)
    return LocatedResult(path, saved, open_slide, slide, current_checkpoint)


def find_checkpoint(checksum: str) -> Checkpoint | None:
    """Load the bundled or recently used checkpoint with this SHA-256."""
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
            continue  # an unreadable file is not the checkpoint
    return None


THUMBNAIL_KEY = "napari-dkan overview"  # of a layer's metadata, so that it is not a slide


@dataclass(eq=False)
class RestoredResult:
    """A result in the window; ``thumbnail`` is shown instead of a slide that is not open."""

    saved: SavedResult
    overlay: PredictionOverlay
    regions: Shapes | None
    slide: ViewerSlide | None
    thumbnail: Image | None = None


def restore_result(session: ViewerSession, located: LocatedResult) -> RestoredResult:
    """Add the layers of a result to the viewer; runs in the GUI thread.

    The session takes its checkpoint, gene, pinned genes, limits and colours.
    """
    saved, checkpoint = located.saved, located.checkpoint
    if checkpoint is not None and checkpoint is not session.checkpoint:
        session.set_checkpoint(checkpoint)
    slide = located.open_slide
    if slide is None and located.slide is not None:
        slide = add_slide_layer(session, located.slide, saved)
    if slide is not None:
        session.viewer_slides.set_current(slide)
    if slide is not None and slide.pixel_size is None:
        session.viewer_slides.set_pixel_size(
            slide, PixelSize(saved.slide_record.mpp, saved.slide_record.mpp_origin)
        )
    overlay = make_overlay(located, saved.slide_record.mpp if slide is None else slide.mpp)
    thumbnail = _add_thumbnail(session, saved) if slide is None else None
    session.add_overlay(overlay, slide)
    regions = _add_regions(session, saved, slide)
    _apply_view_settings(session, saved, overlay)
    session.viewer.layers.selection.active = overlay.layer if slide is None else slide.layer
    _apply_camera(session, saved, slide)
    return RestoredResult(saved, overlay, regions, slide, thumbnail)


def add_slide_layer(session: ViewerSession, slide: Slide, saved: SavedResult) -> ViewerSlide:
    """Add the slide below all other layers."""
    size = PixelSize(saved.slide_record.mpp, saved.slide_record.mpp_origin)
    data, options, _ = make_slide_layer(slide, size)
    session.viewer.layers.insert(0, Image(data, **options))
    return next(s for s in session.slides if s.slide is slide)


def attach_slide(session: ViewerSession, restored: RestoredResult, slide: ViewerSlide) -> None:
    """Place the map and the regions of a result on its slide, which is now open."""
    restored.slide = slide
    layers, map_layer = session.viewer.layers, restored.overlay.layer
    record = restored.saved.slide_record
    if slide.pixel_size is None:
        session.viewer_slides.set_pixel_size(slide, PixelSize(record.mpp, record.mpp_origin))
    grid = restored.overlay.prediction.target.grid
    scale = map_layer.tile_scale if isinstance(map_layer, TileMapLayer) else map_layer.scale
    drawn_mpp = float(scale[-1]) / (1.0 if grid is None else grid.pitch)
    for layer in (map_layer, restored.regions):
        if layer is not None and layer in layers:
            layer.scale = np.asarray(layer.scale) * (slide.mpp / drawn_mpp)
            layer.translate = np.asarray(layer.translate) * (slide.mpp / drawn_mpp)
            session.layers.attach(slide, layer)
    index = layers.index(slide.layer)
    if index > layers.index(map_layer):
        layers.move(index, layers.index(map_layer))
    if session.settings.hatch_unreliable:  # draw the hatching again, on the slide
        session.change_settings(hatch_unreliable=False)
        session.change_settings(hatch_unreliable=True)
    session.layers.remove(restored.thumbnail)
    restored.thumbnail = None


def make_overlay(located: LocatedResult, mpp: float) -> PredictionOverlay:
    """Make the map of a result, drawn at ``mpp`` um per level-0 px; its layer is in no viewer."""
    saved, checkpoint = located.saved, located.checkpoint
    prediction = (
        saved.prediction if checkpoint is not None else _drop_incomplete_genes(saved.prediction)
    )
    decode = _make_decode_function(checkpoint, prediction.panel)
    opacity = 0.65 if saved.view_settings is None else saved.view_settings.opacity
    overlay: PredictionOverlay
    if prediction.target.grid is not None:
        overlay = GridOverlay(prediction, decode, mpp, opacity)
    else:
        size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
        if prediction.target.spots.array_coords is None:
            size = prediction.provenance["patch_um"]  # clicked spots show the patch
        overlay = SpotsOverlay(prediction, decode, mpp, size, opacity)
    overlay.from_file = True
    overlay.label, overlay.place = located.path.stem, saved.slide_record.name
    if isinstance(saved.reliability, SavedReliability):
        overlay.reference = saved.reliability
    elif checkpoint is not None:
        overlay.reference = checkpoint.reference
    return overlay


def _drop_incomplete_genes(prediction: Prediction) -> Prediction:
    """Select the genes that are decoded at all spots; others need the checkpoint."""
    incomplete = set(prediction.find_incomplete_columns().tolist())
    if not incomplete:
        return prediction
    columns = [i for i in range(len(prediction.panel)) if i not in incomplete]
    panel = type(prediction.panel)(tuple(prediction.panel.genes[i] for i in columns))
    return replace(
        prediction,
        panel=panel,
        values=prediction.values[:, columns],
        zero_shot_symbols=tuple(s for s in prediction.zero_shot_symbols if s in panel),
    )


def _make_decode_function(checkpoint: Checkpoint | None, panel: Panel) -> GeneDecoder:
    """Make the decoder of genes that were not decoded when the result was saved."""

    def decode(tokens: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
        from ....inference.gene_decoder import GeneDecoder

        symbols = [panel.symbols[i] for i in columns]
        if checkpoint is None or not all(g in checkpoint.panel for g in symbols):
            raise CheckpointError(
                f"{', '.join(symbols[:4])}: these were not decoded when the result was saved, and "
                "its checkpoint cannot do it now; predict the map again."
            )
        rows = [checkpoint.panel.row(g) for g in symbols]
        return GeneDecoder(checkpoint.network).decode(tokens, rows)

    return decode


def _add_thumbnail(session: ViewerSession, saved: SavedResult) -> Image | None:
    """Add the small image in the file at the position of the slide."""
    if saved.overview is None:
        return None
    side = saved.slide_record.mpp / saved.overview.scale
    middle = (side - saved.slide_record.mpp) / 2  # centre of the first pixel
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
    layer = make_shapes_layer(saved.regions, mpp, "regions", "#00e5ff")
    session.titles.set_title(layer, "regions", saved.slide_record.name)
    if slide is not None:
        session.layers.attach(slide, layer)
    session.viewer.layers.append(layer)
    return layer


def _apply_view_settings(
    session: ViewerSession, saved: SavedResult, overlay: PredictionOverlay
) -> None:
    """Apply gene, pinned genes, limits and colours."""
    view, panel = saved.view_settings, overlay.prediction.panel
    if view is not None:
        session.change_settings(
            colormap=view.colormap,
            opacity=view.opacity,
            hatch_unreliable=view.hatch,
            contrast_limits=ContrastLimits(view.limits, view.limits_by_gene),
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
    """Restore the camera, or show the whole map if the file has none."""
    view, viewer = saved.view_settings, session.viewer
    if view is None or view.centre is None or not view.zoom:
        if slide is None:
            viewer.reset_view()
        else:
            fit_slide(viewer, slide)
        return
    x, y = view.centre
    mpp = saved.slide_record.mpp
    world = (y * mpp, x * mpp) if slide is None else slide.layer.data_to_world((y, x))
    viewer.scene.camera.center = (0.0, float(world[-2]), float(world[-1]))
    viewer.scene.camera.zoom = view.zoom


def _describe_missing_slide(slide: SlideRecord) -> str:
    if "://" in slide.path:
        return f"{slide.name} is at {slide.path}, where nothing is opened unasked"
    if not slide.path:
        return f"{slide.name} was an image without a file"
    return f"{slide.name} is neither where it was ({slide.path}) nor beside this file"


def describe_restored_result(located: LocatedResult, restored: RestoredResult) -> str:
    """Describe a restored result, and what of it was not found, for the user."""
    saved, provenance = located.saved, located.saved.prediction.provenance
    day = str(provenance.get("created", ""))[:10]
    model = str(provenance.get("checkpoint", "")) or "an untitled checkpoint"
    count = len(saved.prediction.target)
    sentences = [f"{located.path.name}: {count:,} tiles predicted by {model} on {day}."]
    if located.checkpoint is None:
        checksum = str(provenance.get("checkpoint_sha256", ""))[:8]
        sentences.append(
            f"Its checkpoint ({checksum}) is not here: the map shows what was saved; choose the "
            "checkpoint's file under Model to predict more with it."
        )
    slide = restored.slide
    if slide is None:
        missing = _describe_missing_slide(saved.slide_record)
        sentences.append(f"Its slide {missing}; open it, or press Locate slide.")
    elif abs(slide.mpp / saved.slide_record.mpp - 1) > 0.01:
        sentences.append(
            f"It was predicted at {saved.slide_record.mpp:.4g} um/px; the slide is open at "
            f"{slide.mpp:.4g} um/px."
        )
    return " ".join(sentences)


def show_saved_spot(session: ViewerSession, world: tuple[float, float]) -> bool:
    """Show the spot of a restored map at a clicked position.

    Parameters
    ----------
    session
    world
        Position (y, x).

    Returns
    -------
    bool
        False where no restored map was clicked, or its checkpoint and slide are in use: the click
        predicts.
    """
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
        reliability = None
        if isinstance(reference, SavedReliability):
            reliability = get_reliability(prediction, reference, rows)
        session.message.show("")
        session.set_spot(
            prediction.take(rows),
            reliability if isinstance(reliability, SavedReliability) else None,
        )
        return True
    return False


def _is_predictable(session: ViewerSession, prediction: Prediction) -> bool:
    """Whether the checkpoint and the slide of a map are in use, so that a click can predict."""
    checkpoint, slide, provenance = session.checkpoint, session.slide, prediction.provenance
    if checkpoint is None or slide is None:
        return False
    key = checkpoint.sha256, slide.slide.fingerprint()
    return (provenance.get("checkpoint_sha256"), provenance.get("slide_fingerprint")) == key
