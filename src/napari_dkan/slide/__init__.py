"""What is on the glass: any slide as a pyramid of regions with a pixel size, and its tissue."""

from .opening import open_slide
from .pixel_size import PixelSize
from .slide import Level, Slide

__all__ = ["Level", "PixelSize", "Slide", "open_slide"]
