"""Batches concurrent requests."""

import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.concurrency import wait_budget
from service.concurrency.futures import result_of
from service.concurrency.wait_budget import WaitBudget
from service.errors import ClientGone, WaitedTooLong
from service.telemetry import timing

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass(eq=False)
class _Request(Generic[K, I, R]):
    """The items of one caller, with the wait budget and the stage times of its context."""

    key: K
    items: Sequence[I]
    size: int
    answer: Future[Sequence[R]] = field(default_factory=Future)
    budget: WaitBudget = field(default_factory=wait_budget.current)
    spent: timing.Spent = field(default_factory=timing.current)
    submitted: float = field(default_factory=time.perf_counter)

    def begin(self) -> bool:
        """Returns whether to run the request; one that waited too long, or whose client is gone,
        gets its error."""
        if not self.answer.set_running_or_notify_cancel():
            return False
        waited = time.perf_counter() - self.submitted
        self.spent.add("queue", waited)
        try:
            self.budget.spend(waited)
        except (WaitedTooLong, ClientGone) as error:
            self.answer.set_exception(error)
            return False
        return True


class Batcher(Generic[K, I, R]):
    """Runs ``work`` on batches of what callers submit, on its own threads.

    A batch holds the items of one key, the oldest request first, and at most ``most`` items
    unless one request has more. It never waits to fill up: requests that arrive during a batch
    form the next one. Several threads share the waiting requests evenly.

    ``work``: takes a key and items and returns one result for each item. ``size``: by how many an
    item counts. The threads start with the first request and end with ``close``. The number of
    waiting requests is bounded by the callers.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[K, Sequence[I]], Sequence[R]],
        most: int,
        threads: int = 1,
        size: Callable[[I], int] = lambda item: 1,
    ) -> None:
        self.work, self.most, self._size = work, most, size
        self._waiting: deque[_Request[K, I, R]] = deque()
        # True for each request, False to end a thread.
        self._submitted: SimpleQueue[bool] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{n}") for n in range(threads)
        ]
        self._started = self._closed = False
        self._changing = threading.Lock()

    def submit(self, key: K, items: Sequence[I]) -> Future[Sequence[R]]:
        """Queues items, which must not be empty; a closed batcher cancels the future.

        The future raises the error of ``work``, or WaitedTooLong.
        """
        request: _Request[K, I, R] = _Request(key, items, sum(map(self._size, items)))
        with self._changing:
            if self._closed:
                request.answer.cancel()
                return request.answer
            if not self._started:
                for thread in self._threads:
                    if thread.ident is None:  # an earlier attempt may have started only some
                        thread.start()
                self._started = True
            self._waiting.append(request)
        self._submitted.put(True)
        return request.answer

    async def results(self, key: K, items: Sequence[I]) -> list[R]:
        """Returns the results of any number of items."""
        return [result async for part in self.parts(key, items) for result in part]

    async def parts(self, key: K, items: Sequence[I]) -> AsyncGenerator[Sequence[R], None]:
        """Yields the results of ``most`` items at a time, so that others' requests run in between.

        Only the first part is subject to the wait budget.
        """
        for first in range(0, len(items), self.most):
            if first:
                wait_budget.current().lift()
            yield await result_of(self.submit(key, items[first : first + self.most]))

    def close(self) -> None:
        """Cancels waiting requests. A batch in progress is finished; ``close`` doesn't wait."""
        with self._changing:
            self._closed = True
            for request in self._waiting:
                request.answer.cancel()
        for _ in self._threads:
            self._submitted.put(False)

    def _run(self) -> None:
        while self._submitted.get():
            self._answer([request for request in self._take() if request.begin()])

    def _take(self) -> list[_Request[K, I, R]]:
        """Removes the oldest request and those that fit beside it; none if others took it."""
        batch: list[_Request[K, I, R]] = []
        room = self.most
        with self._changing:
            share = math.ceil(len(self._waiting) / len(self._threads))
            for request in [*self._waiting]:
                if len(batch) == share:
                    break
                if not batch or (request.key == batch[0].key and request.size <= room):
                    room -= request.size
                    batch.append(request)
                    self._waiting.remove(request)
        return batch

    def _answer(self, batch: list[_Request[K, I, R]]) -> None:
        if not batch:
            return
        try:
            with timing.collected() as spent, timing.working():
                items = [item for request in batch for item in request.items]
                results = self.work(batch[0].key, items)
        except BaseException as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        done, size = 0, sum(request.size for request in batch)
        for request in batch:
            for name, seconds in spent.stages.items():
                request.spent.add(name, seconds)
            request.spent.add_cpu(spent.cpu * request.size / size)
            request.answer.set_result(results[done : done + len(request.items)])
            done += len(request.items)
