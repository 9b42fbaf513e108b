"""Reading ahead: pixels are read in threads while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], depth: int = 16, threads: int = 2
) -> Generator[Read, None, None]:
    """``read(item)`` in order, at most ``depth`` reads ahead of the consumer.

    Closing the iterator drops what was not started; an error of a read is raised when its
    turn comes.
    """
    source = iter(items)
    pending: deque[Future[Read]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dkan-read")
    try:
        pending.extend(pool.submit(read, item) for item in islice(source, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(read, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
