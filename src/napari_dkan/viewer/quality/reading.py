"""The sections that are to be read, one after the other, off the GUI thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from napari.utils.notifications import show_warning

from ..lane import Failure, Lane
from ..session import Session
from .loading import Offered, Order, Read, loading


class Reading:
    """A queue of orders, each with its empty layer where it was dropped.

    offer : told the sections there are to choose from. take : told what was read. tell : told
    when there is something new to say about progress.
    """

    def __init__(
        self,
        session: Session,
        offer: Callable[[Offered], None],
        take: Callable[[Order, Read], None],
        tell: Callable[[str], None],
    ) -> None:
        self._session, self._offer, self._take, self._tell = session, offer, take, tell
        self._lane = Lane("measured ST")
        self._orders: deque[Order] = deque()
        self._now: Order | None = None

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def order(self, order: Order) -> None:
        """Read this when everything ordered before is read."""
        self._orders.append(order)
        self._next()

    def cancel(self) -> None:
        """Read none of what was ordered."""
        left = [o for o in (self._now, *self._orders) if o is not None]
        self._orders.clear()
        self._now = None
        self._lane.cancel()
        for order in left:
            self.drop_empty(order)

    def close(self) -> None:
        self.cancel()
        self._lane.wait()

    def drop_empty(self, order: Order) -> None:
        """Nothing comes into the layer of a drop: it goes."""
        layers = self._session.viewer.layers
        if order.layer is not None and order.layer in layers:
            layers.remove(order.layer)

    def _next(self) -> None:
        if self._lane.busy or not self._orders:
            return
        order = self._now = self._orders.popleft()
        slides, current = list(self._session.slides), self._session.slide
        self._lane.start(lambda: loading(order, slides, current), self._receive, self._end)
        self._tell(f"Reading {order.name}")

    def _receive(self, item: Offered | Read) -> None:
        order = self._now
        if order is None:
            return
        if isinstance(item, Offered):
            self._offer(item)
        elif order.layer is None or order.layer in self._session.viewer.layers:
            self._take(order, item)  # else its empty layer was deleted meanwhile

    def _end(self, failure: Failure | None) -> None:
        order, self._now = self._now, None
        self._tell("")
        if failure is not None:
            self._session.say(failure.sentence, alarming=True)
            if order is not None and order.layer is not None:
                self.drop_empty(order)
                show_warning(failure.sentence)  # it was dropped: there may be no panel
        self._next()
