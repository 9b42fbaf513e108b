"""Slides: open a file as a pyramid of regions with a pixel size, and find its tissue."""

from .format_detection import open_slide
from .pixel_size import PixelSize
from .slide import Slide
from .sources.slide_source import Level

__all__ = ["Level", "PixelSize", "Slide", "open_slide"]
