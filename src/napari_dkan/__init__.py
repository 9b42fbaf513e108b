"""Predict spatial gene expression from H&E with DKAN, inside napari.

Importing this package loads neither torch nor Qt; the rooms below it do so
when they are first used.
"""

__version__ = "0.1.0"
