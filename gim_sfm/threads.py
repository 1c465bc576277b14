"""Work in other threads: how many processors there are, and results in order, some of them ahead of time."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ahead(
    make: Callable[[Given], Made], given: Iterable[Given], threads: int, depth: int
) -> Generator[Made, None, None]:
    """Makes items in other threads, in order, at most `depth` items beyond the one asked for."""
    makers = ThreadPoolExecutor(threads, thread_name_prefix="works ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in given:
            waiting.append(makers.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        makers.shutdown(cancel_futures=True)
