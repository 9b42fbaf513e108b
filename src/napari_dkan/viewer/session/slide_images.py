"""The images of a slide file (scan, label, macro) and the frame of its positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from ...slide import Slide, open_slide
from ...slide.file_images import FileImage, choose_image
from .pixel_size_sources import recall_pixel_size
from .slide_layer import SLIDE_KEY, make_slide_layer
from .viewer_settings import is_icc_enabled

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from .viewer_slides import ViewerSlides


def scan_index(slide: Slide) -> int:
    """Return which of the images of a file is the scan; it has several."""
    return choose_image(slide.images, None)


def open_image_index(slide: Slide) -> int:
    """Return which of the images of a file is open; it has several."""
    names = [image.name for image in slide.images]
    sizes = [(image.width, image.height) for image in slide.images]
    same = [i for i, name in enumerate(names) if name == slide.image_name]
    # Images may have the same name; their sizes then differ.
    return next((i for i in same if sizes[i] == (slide.width, slide.height)), same[0])


def format_image(image: FileImage, is_scan: bool) -> str:
    """Format an image for a list, for example ``macro (1,280 x 431)``."""
    name = f"image {image.name}" if image.name.isdecimal() else image.name
    is_named = name.casefold() == "scan"
    return f"{name} ({image.width:,} x {image.height:,})" + (
        ", the scan" if is_scan and not is_named else ""
    )


def describe_slide(slide: Slide) -> str:
    """Describe what was read of a slide's file: a line each for the size, the image, the frame."""
    lines = [f"read: {slide.label}, {slide.width:,} x {slide.height:,} px"]
    if slide.image_name:
        names = ", ".join(image.name for image in slide.images)
        lines.append(f"image: {slide.image_name} (of {len(slide.images)}: {names})")
    if has_two_frames(slide):
        frame = "the whole glass" if is_whole_glass(slide) else "the scan area, as in QuPath"
        lines.append(f"positions count from the corner of {frame}")
    if slide.color_conversion:
        lines.append(f"colours: {slide.color_conversion}")
    return "\n".join(lines)


def show_file_image(viewer: ViewerModel, slides: ViewerSlides, index: int) -> None:
    """Show an image of the current slide's file: that which is open, else a new one beside it.

    Raises
    ------
    SlideError
        It cannot be opened.
    """
    current = slides.current
    if current is None:
        return
    for other in slides.slides:
        of_same_file = other.slide.location == current.slide.location and other.slide.images
        if of_same_file and open_image_index(other.slide) == index:
            other.layer.visible = True
            slides.set_current(other)
            return
    images = current.slide.images
    names = [image.name for image in images]
    name = names[index]
    opened = open_slide(
        current.slide.location,
        apply_icc=is_icc_enabled(),
        image=None if index == scan_index(current.slide) else _unique_name(names, index),
        whole_glass=is_whole_glass(current.slide),
    )
    pixels, options, _ = make_slide_layer(opened, recall_pixel_size(opened) or opened.pixel_size)
    if index != scan_index(current.slide):
        options["name"] = f"{opened.name}, {name}"
    viewer.layers.insert(viewer.layers.index(current.layer) + 1, Image(pixels, **options))


def _unique_name(names: list[str], index: int) -> str | int:
    return names[index] if names.count(names[index]) == 1 else index


# For positions that fit in the other frame, as the panel calls it.
GLASS_ADVICE = "choose the frame 'whole glass' under Slide in the panel DKAN: predict"


def show_frame(viewer: ViewerModel, slides: ViewerSlides, whole_glass: bool) -> None:
    """Show the current slide with positions that count from the glass, or from its scan area.

    The tissue and what lies on it stay where they are on the canvas.

    Raises
    ------
    SlideError
        It cannot be opened.
    """
    current = slides.current
    if current is None or is_whole_glass(current.slide) == whole_glass:
        return
    layer, old = current.layer, current.slide
    opened = open_slide(old.location, apply_icc=is_icc_enabled(), whole_glass=whole_glass)
    shift = np.subtract(opened.scan_origin, old.scan_origin)[::-1]  # of the tissue, in px (y, x)
    on_slide = slides.layer_registry.layers_of(current, viewer.layers)
    layer.metadata[SLIDE_KEY] = (opened, current.pixel_size)
    layer.translate = layer.translate - np.asarray(layer.rotate) @ (layer.scale * shift)
    layer.data = opened.pyramid()
    slides.layer_registry.detach(on_slide)  # their positions count in the other frame


def is_whole_glass(slide: Slide) -> bool:
    """Whether positions count from the corner of the glass, outside the scan area."""
    return has_two_frames(slide) and (slide.width, slide.height) == slide.scan_area.glass[2:]


def has_two_frames(slide: Slide) -> bool:
    """Whether the file states a scan area that is smaller than the glass."""
    return slide.scan_area.scan != slide.scan_area.glass
