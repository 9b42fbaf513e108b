"""Exceptions whose message is shown to the user."""


class DkanError(Exception):
    """An error that the user can act on.

    The message is one plain sentence that names the file (or the input) and the fix. The viewer
    and the command line show it without a traceback.
    """


class SlideError(DkanError):
    """A slide cannot be opened or read."""


class DamagedTileError(SlideError):
    """A region of a slide cannot be decoded; the rest of the slide can be read."""


class CheckpointError(DkanError):
    """A checkpoint, or a file that it is made from, is not usable."""


class EncoderError(DkanError):
    """A tile or text encoder is unknown, or its weights are not available."""


class SpotsError(DkanError):
    """Spots, regions or measured expression are not usable."""


class SpotsFindingError(SpotsError):
    """A finding, with advice for the command line; the window gives its own.

    Attributes
    ----------
    finding : str
        What was found, as a sentence without advice.
    """

    advice = ""  # of the command line

    def __init__(self, finding: str, *others: object) -> None:
        super().__init__(finding, *others)  # without the advice, so that it can be pickled
        self.finding = finding

    def __str__(self) -> str:
        return f"{self.finding.rstrip('.')}; {self.advice}."


class FewGenesError(SpotsFindingError):
    """A section measures few genes of a panel, perhaps by chance, which can be accepted."""

    advice = "use these few with --few-genes (few_genes=True)"


class MissingPixelSizeError(SpotsFindingError):
    """Positions are in micrometres, and the pixel size that converts them is not known."""

    advice = "give the one that QuPath shows for the image, with --mpp"


class SeveralSectionsError(SpotsFindingError):
    """A file holds several sections and none is named."""

    advice = "name one as library (--library)"


class UnclearRegionsError(SpotsFindingError):
    """A file has several types of objects, and none of them is surely what is meant by regions.

    Attributes
    ----------
    types : tuple of str
        The types to choose from.
    """

    advice = "say with --region-objects which of them are regions, or export annotations only"

    def __init__(self, finding: str, types: tuple[str, ...]) -> None:
        super().__init__(finding, types)
        self.types = types


class GeneError(DkanError):
    """Gene descriptions, or a file of them, are not available."""


class OutputError(DkanError):
    """A result cannot be written."""


class ResultError(DkanError):
    """A saved result cannot be opened."""


class CacheError(DkanError):
    """The token cache received an invalid request."""


class FinetuneError(DkanError):
    """Fine-tuning could not be started, or its process ended unexpectedly."""
