"""What a session has beside itself: results, measured sections, regions being brought in.

Each is made when first asked for, and kept by the session: a global would keep it for good, as
each of them knows its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session

T = TypeVar("T")


def companion(session: Session, kind: Callable[[Session], T]) -> T:
    """The session's own one of a kind."""
    if kind not in session.companions:
        session.companions[kind] = kind(session)
    return cast(T, session.companions[kind])
