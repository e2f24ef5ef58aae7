"""Threads that do not keep the process alive: an interrupted program ends, though a download would go on for hours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def start(work: Callable[[], B]) -> Future[B]:
    """Do it in a thread of its own."""
    future: Future[B] = Future()
    Thread(target=_fulfil, args=(future, work), daemon=True).start()
    return future


def map_at_once(work: Callable[[A], B], items: Sequence[A], count: int) -> Iterator[B]:
    """Results in the order of the items, `count` of which are worked on at once; after a fault no more are begun."""
    futures: list[Future[B]] = [Future() for _ in items]
    waiting = deque(zip(items, futures, strict=True))

    def run() -> None:
        while waiting:
            try:
                item, future = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            _fulfil(future, partial(work, item))

    for _ in range(min(count, len(items))):
        Thread(target=run, daemon=True).start()
    try:
        for future in futures:
            yield future.result()
    finally:
        waiting.clear()


def _fulfil(future: Future[B], work: Callable[[], B]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
