"""A saved result in the window again: slide, map, regions, and how it was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray

from ...errors import CheckpointError
from ...export.saved import Judgement, Saved
from ...inference.prediction import Prediction
from ...slide import PixelSize, Slide
from ..overlay import Decode, GridOverlay, Overlay, SpotsOverlay
from ..places import shapes_of
from ..session import Limits, OpenSlide, Session
from ..slides import AXES, UNITS, slide_layer_data

if TYPE_CHECKING:
    from ...expression.panel import Panel
    from ...model import Checkpoint
    from .finding import Found

PICTURE = "napari-dkan overview"  # key of its layer's metadata, so that it is not a slide


@dataclass(eq=False)
class Reopened:
    """A result in the window. picture : in the slide's place as long as that is not here."""

    saved: Saved
    overlay: Overlay
    regions: Shapes | None
    slide: OpenSlide | None
    picture: Image | None = None


def restore(session: Session, found: Found) -> Reopened:
    """Bring it back, all but what is not here; quick, for the GUI thread.

    The session takes its checkpoint, gene, pinned genes, limits and colours.
    """
    saved, checkpoint = found.saved, found.checkpoint
    if checkpoint is not None and checkpoint is not session.checkpoint:
        session.use_checkpoint(checkpoint)
    slide = found.shown
    if slide is None and found.slide is not None:
        slide = show_slide(session, found.slide, saved)
    if slide is not None:
        session.choose_slide(slide)
    if slide is not None and slide.pixel_size is None:
        session.scale_slide(slide, PixelSize(saved.slide.mpp, saved.slide.mpp_origin))
    overlay = overlay_of(found, saved.slide.mpp if slide is None else slide.mpp)
    picture = _picture(session, saved) if slide is None else None
    session.add_overlay(overlay, slide)
    regions = _regions(session, saved, slide)
    _look(session, saved, overlay)
    session.viewer.layers.selection.active = overlay.layer if slide is None else slide.layer
    _point(session, saved, slide)
    return Reopened(saved, overlay, regions, slide, picture)


def show_slide(session: Session, slide: Slide, saved: Saved) -> OpenSlide:
    """Lay the slide under everything else."""
    size = PixelSize(saved.slide.mpp, saved.slide.mpp_origin)
    data, options, _ = slide_layer_data(slide, size)
    session.viewer.layers.insert(0, Image(data, **options))
    return next(s for s in session.slides if s.slide is slide)


def lay_on(session: Session, reopened: Reopened, slide: OpenSlide) -> None:
    """The slide of a result has come: its map lies on it from now on."""
    reopened.slide = slide
    layers, mine, record = session.viewer.layers, reopened.overlay.layer, reopened.saved.slide
    if slide.pixel_size is None:
        session.scale_slide(slide, PixelSize(record.mpp, record.mpp_origin))
    grid = reopened.overlay.prediction.target.grid
    drawn_at = float(mine.scale[-1]) / (1.0 if grid is None else grid.pitch)  # um per px
    for layer in (mine, reopened.regions):
        if layer is not None and layer in layers:
            layer.scale = np.asarray(layer.scale) * (slide.mpp / drawn_at)
            layer.translate = np.asarray(layer.translate) * (slide.mpp / drawn_at)
            session.put_on(slide, layer)
    at = layers.index(slide.layer)
    if at > layers.index(mine):
        layers.move(at, layers.index(mine))
    if session.settings.hatch:  # anew, on the slide
        session.change(hatch=False)
        session.change(hatch=True)
    if reopened.picture is not None and reopened.picture in layers:
        layers.remove(reopened.picture)
    reopened.picture = None


def overlay_of(found: Found, mpp: float) -> Overlay:
    """Its map, whose layer is not in any viewer yet. mpp : um per level-0 px to draw it at."""
    saved, checkpoint = found.saved, found.checkpoint
    prediction = saved.prediction if checkpoint is not None else _decoded(saved.prediction)
    decode = _decoder(checkpoint, prediction.panel)
    what = f"{saved.slide.name}, {found.path.stem}"
    opacity = 0.65 if saved.view is None else saved.view.opacity
    overlay: Overlay
    if prediction.target.grid is not None:
        overlay = GridOverlay(prediction, decode, mpp, what, opacity)
    else:
        size = prediction.target.spots.diameter_um or prediction.provenance["patch_um"]
        if prediction.target.spots.array is None:
            size = prediction.provenance["patch_um"]  # clicked spots show what was looked at
        overlay = SpotsOverlay(prediction, decode, mpp, size, what, opacity)
    overlay.reopened = True
    if isinstance(saved.reliability, Judgement):
        overlay.reference = saved.reliability
    elif checkpoint is not None:
        overlay.reference = checkpoint.reference
    return overlay


def _decoded(prediction: Prediction) -> Prediction:
    """The genes that all of its spots have: without its checkpoint no other can be had."""
    lacking = set(prediction.lacking().tolist())
    if not lacking:
        return prediction
    kept = [i for i in range(len(prediction.panel)) if i not in lacking]
    genes = tuple(prediction.panel.genes[i] for i in kept)
    known = tuple(s for s in prediction.zero_shot if s in {g.symbol for g in genes})
    panel = type(prediction.panel)(genes)
    return replace(prediction, panel=panel, values=prediction.values[:, kept], zero_shot=known)


def _decoder(checkpoint: Checkpoint | None, panel: Panel) -> Decode:
    """What decodes genes that were not decoded when the result was saved, if anything can."""

    def decode(tokens: NDArray[np.float32], columns: Sequence[int]) -> NDArray[np.float32]:
        from ...inference.decoding import Decoder

        wanted = [panel.symbols[i] for i in columns]
        if checkpoint is None or not all(g in checkpoint.panel for g in wanted):
            raise CheckpointError(
                f"{', '.join(wanted[:4])}: these were not decoded when the result was saved, and "
                "its checkpoint cannot do it now; predict the map again."
            )
        rows = [checkpoint.panel.row(g) for g in wanted]
        return Decoder(checkpoint.network).decode(tokens, rows)

    return decode


def _picture(session: Session, saved: Saved) -> Image | None:
    """The small picture that travels with a result, where the slide would be."""
    if saved.picture is None:
        return None
    side = saved.slide.mpp / saved.picture.factor
    middle = (side - saved.slide.mpp) / 2  # of its first pixel
    layer = Image(
        saved.picture.rgb,
        rgb=True,
        name=f"{saved.slide.name} (small picture; the slide is not here)",
        scale=(side, side),
        translate=(middle, middle),
        units=UNITS,
        axis_labels=AXES,
        metadata={PICTURE: True},
    )
    session.viewer.layers.insert(0, layer)
    return layer


def _regions(session: Session, saved: Saved, slide: OpenSlide | None) -> Shapes | None:
    if saved.regions is None or saved.regions.is_empty:
        return None
    mpp = saved.slide.mpp if slide is None else slide.mpp
    layer = shapes_of(saved.regions, mpp, f"regions, {saved.slide.name}", "#00e5ff")
    if slide is not None:
        session.put_on(slide, layer)
    session.viewer.layers.append(layer)
    return layer


def _look(session: Session, saved: Saved, overlay: Overlay) -> None:
    """Gene, pinned genes, limits and colours, as far as this window knows them."""
    view, panel = saved.view, overlay.prediction.panel
    if view is not None:
        settings = {"colormap": view.colormap, "opacity": view.opacity, "hatch": view.hatch}
        session.change(**settings, limits=Limits(view.limits))
    gene = panel.symbols[0] if view is None or view.gene not in panel else view.gene
    if view is None and session.gene in panel:
        gene = session.gene
    pinned = () if view is None else tuple(g for g in view.pinned if g in panel)
    if pinned:
        session.pinned = pinned
        session.pinned_changed.emit()
    session.set_gene(gene or "")


def _point(session: Session, saved: Saved, slide: OpenSlide | None) -> None:
    """Look where it was looked at, else at the whole map."""
    view, viewer = saved.view, session.viewer
    if view is None or view.centre is None or not view.zoom:
        viewer.reset_view()
        return
    x, y = view.centre
    mpp = saved.slide.mpp
    world = (y * mpp, x * mpp) if slide is None else slide.layer.data_to_world((y, x))
    viewer.scene.camera.center = (0.0, float(world[-2]), float(world[-1]))
    viewer.scene.camera.zoom = view.zoom
