"""Values of several genes at the tiles of the current slide, kept up to date."""

from __future__ import annotations

from collections.abc import Iterator

from psygnal import Signal

from ..layers.slide_tiles import TileValues, find_slide_tiles
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from ..worker import JobFailure, JobRunner

REFRESH_DELAY_MS = 200


class TileReader:
    """Reads genes of the map of the current slide in a thread, again when it grows.

    Attributes
    ----------
    symbols : tuple of str
        The genes or scores; empty: nothing is read.
    values : TileValues or None
        None until they are read, and without a map that has all of them.
    slide : ViewerSlide or None
        Of the values.
    """

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self.symbols: tuple[str, ...] = ()
        self.values: TileValues | None = None
        self.slide: ViewerSlide | None = None
        self._runner = JobRunner("tiles of genes")
        self._debouncer = Debouncer(REFRESH_DELAY_MS, self._start)
        self._is_outdated = False
        connections.connect(
            self._schedule, session.overlays_changed, session.overlay_updated, session.slide_changed
        )
        connections.on_disconnect(self.close)

    @property
    def busy(self) -> bool:
        return self._runner.busy or self._debouncer.active

    def close(self) -> None:
        """Stop and wait for the thread."""
        self.symbols = ()
        self._debouncer.stop()
        self._runner.close()

    def read(self, symbols: tuple[str, ...]) -> None:
        """Read these genes from now on; () stops."""
        self.symbols = symbols
        if not symbols:
            self._runner.cancel()
            self._set(None, None)
        else:
            self._start()

    def _schedule(self, event: object = None) -> None:
        if self.symbols and not self._debouncer.active:
            self._debouncer.start()

    def _start(self) -> None:
        if not self.symbols:
            return
        if self._runner.busy:
            self._is_outdated = True
            return
        self._is_outdated = False
        slide, symbols = self._session.slide, self.symbols
        tiles = None
        if slide is not None and slide.pixel_size is not None:
            tiles = find_slide_tiles(self._session, slide)
        if tiles is None or not all(tiles.has_gene(symbol) for symbol in symbols):
            self._set(None, None)
            return

        def job() -> Iterator[TileValues]:
            yield tiles.read(symbols)

        self._runner.start(job, lambda values: self._receive(values, slide, symbols), self._on_end)

    def _receive(
        self, values: TileValues, slide: ViewerSlide | None, symbols: tuple[str, ...]
    ) -> None:
        if symbols == self.symbols and slide is self._session.slide:
            self._set(values, slide)

    def _set(self, values: TileValues | None, slide: ViewerSlide | None) -> None:
        self.values, self.slide = values, slide
        self.changed.emit()

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
        elif self._is_outdated:
            self._start()
