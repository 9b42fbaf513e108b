"""The one error type that users are shown."""


class DkanError(Exception):
    """Something the user can act on.

    The message is one plain sentence that names the file (or the input) and the
    fix; the widget and the command line show it as it is, without a traceback.
    """


class SlideError(DkanError):
    """A slide could not be opened or read."""


class DamagedTileError(SlideError):
    """The pixels of one place of a slide cannot be decoded; the rest of it can be read."""


class CheckpointError(DkanError):
    """A checkpoint, or a file it is made from, is not usable."""


class EncoderError(DkanError):
    """A tile or text encoder is unknown, or its weights cannot be had."""


class SpotsError(DkanError):
    """Spots, regions or measured expression are not usable."""


class GeneError(DkanError):
    """Descriptions of genes, or a file of them, cannot be had."""


class OutputError(DkanError):
    """A result could not be written."""


class ResultError(DkanError):
    """A saved result cannot be opened again."""


class CacheError(DkanError):
    """What was asked of the cache of features makes no sense."""


class FinetuneError(DkanError):
    """A fine-tuning could not be started, or its process ended unexpectedly."""
