"""Import tables of spot positions in a worker thread, as a Points layer on the slide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_warning
from psygnal import Signal

from ....errors import MissingPixelSizeError, SeveralSectionsError, SpotsError
from ....spatial.coordinates import swap_xy
from ....spatial.spots import Spots
from ...session.pixel_size_sources import ARRAY_COLUMNS, PITCH_KEY
from ...session.slide_images import GLASS_ADVICE
from ...session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, PIXEL_UNITS, ViewerSlide
from ...session.viewer_session import ViewerSession, get_component
from ...worker import JobFailure, JobRunner

DEFAULT_DIAMETER_PX = 100.0
COLOR = "#00e5ff"


class SpotImporter:
    """Imports one table of spots at a time; one importer per session."""

    imported = Signal(object)  # the new Points layer

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._runner = JobRunner("spots")
        self._pending_paths: list[Path] = []
        self._slide_notice = ""  # that a slide is to be opened first
        session.slides_changed.connect(self._clear_slide_notice)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def import_file(self, path: Path) -> None:
        """Add the spots of a table to the current slide; several files are queued."""
        self._pending_paths.append(path)
        if not self._runner.busy:
            self._import_next()

    def _import_next(self) -> None:
        if not self._pending_paths:
            return
        path, slide = self._pending_paths.pop(0), self._session.slide
        self._slide_notice = f"Open the slide of {path.name} first, then drop the spots on it."

        def job() -> Iterator[Spots]:
            if slide is None:
                raise SpotsError(self._slide_notice)
            yield read_spots_of_slide(path, slide)

        def receive(spots: Spots) -> None:
            if slide is not None and slide in self._session.slides:
                self._add_layer(make_spots_layer(spots, path.name, slide), slide)
                self._session.message.show(describe_spots(spots, path.name))

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                self._session.message.show(failure.message, warning=True)
                show_warning(failure.message)  # a file was dropped: no panel may be open
            self._import_next()

        self._session.message.show(f"Reading {path.name} ...")
        self._runner.start(job, receive, end)

    def _clear_slide_notice(self) -> None:
        if self._slide_notice and self._session.message.text == self._slide_notice:
            self._session.message.clear()

    def _add_layer(self, layer: Points, slide: ViewerSlide) -> None:
        self._session.layers.attach(slide, layer)
        self._session.viewer.layers.append(layer)
        self.imported.emit(layer)


def read_spots_of_slide(path: Path, slide: ViewerSlide) -> Spots:
    """Read a table of spots, whose positions count in px of the slide or in micrometres.

    Raises
    ------
    SpotsError
        It has no positions, or none is on the slide.
    """
    from ....expression.tables.spot_files import read_spots

    try:
        spots = read_spots(path, None if slide.pixel_size is None else slide.mpp)
    except MissingPixelSizeError as error:
        raise SpotsError(
            f"{error.finding} Set it in the panel DKAN: predict, under Slide, and drop the table "
            "again."
        ) from error
    except SeveralSectionsError as error:
        raise SpotsError(f"{error.finding} Drop a table with the spots of one of them.") from error
    except SpotsError as error:
        raise SpotsError(
            f"{error} If {path.name} holds counts, load it with its spots in the panel DKAN: "
            "quality control (Load measured ST... > Files...)."
        ) from error
    width, height = slide.slide.width, slide.slide.height
    if not ((spots.xy >= 0) & (spots.xy < (width, height))).all(axis=1).any():
        advice = "open the slide that they belong to"
        if slide.slide.scan_area.fits_from_glass(spots.xy):
            advice = (
                f"they fit if they count from the corner of the glass: {GLASS_ADVICE}, and drop "
                "the table again"
            )
        raise SpotsError(
            f"The spots in {path.name} lie outside the slide ({width:,} x {height:,} px); {advice}."
        )
    return spots


def make_spots_layer(spots: Spots, name: str, slide: ViewerSlide) -> Points:
    """Make a Points layer of spots on a slide, with their array coordinates as features."""
    diameter = spots.diameter_um
    features = {}
    if spots.array_coords is not None:
        features = dict(zip(ARRAY_COLUMNS, np.asarray(spots.array_coords).T, strict=True))
    return Points(
        swap_xy(spots.xy),
        ndim=2,
        name=name,
        features=features,
        metadata={} if spots.pitch_um is None else {PITCH_KEY: spots.pitch_um},
        size=DEFAULT_DIAMETER_PX if diameter is None else diameter / slide.mpp,
        scale=(slide.mpp, slide.mpp),
        units=PIXEL_UNITS if slide.pixel_size is None else MICROMETER_UNITS,
        axis_labels=AXIS_LABELS,
        face_color="transparent",
        border_color=COLOR,
    )


def describe_spots(spots: Spots, name: str) -> str:
    """Describe what was read of a table, in a sentence."""
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in spots.left_out)
    sentence = f"{name}: {len(spots):,} spots" + (f"; left out: {left_out}." if left_out else ".")
    return " ".join([sentence, *(f"{note}." for note in spots.notes)])


def get_spot_importer(session: ViewerSession) -> SpotImporter:
    """Return the importer of a session; create it at first use."""
    return get_component(session, SpotImporter)
