"""What a session has beside itself: results, measured sections, regions being brought in.

Each is made when first asked for, and kept by the session: a global would keep it for good, as
each of them knows its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import ViewerSession

ComponentT = TypeVar("ComponentT")


def get_component(session: ViewerSession, factory: Callable[[ViewerSession], ComponentT]) -> ComponentT:
    """The session's own one of a kind."""
    if factory not in session.components:
        session.components[factory] = factory(session)
    return cast(ComponentT, session.components[factory])
