"""What is asked for at the same time, done at once."""

import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.concurrency import deadlines
from service.concurrency.deadlines import Patience
from service.concurrency.futures import in_turn
from service.problems import Problem
from service.telemetry import timing

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass(eq=False)
class _Request(Generic[K, I, R]):
    """What is asked for, with the patience and the stage times of who asks."""

    key: K
    items: Sequence[I]
    answer: Future[Sequence[R]] = field(default_factory=Future)
    waits: Patience = field(default_factory=deadlines.current)
    spent: timing.Spent = field(default_factory=timing.current)
    asked: float = field(default_factory=time.perf_counter)

    def begin(self) -> bool:
        """False where nobody waits for it any more, or it comes too late; that is its answer."""
        if not self.answer.set_running_or_notify_cancel():
            return False
        waited = time.perf_counter() - self.asked
        timing.add("queue", waited, self.spent)
        try:
            self.waits.spend(waited)
        except Problem as error:
            self.answer.set_exception(error)
            return False
        return True


class Batcher(Generic[K, I, R]):
    """Threads of its own do what there is, of one key and at most so many items at once, or more
    where one asks for more; what comes meanwhile is the next batch, the oldest first. Nothing
    waits for a batch to fill.

    work: a key and items -> a result for each. initializer: what each thread begins with.
    How many wait is bounded by who asks. Threads begin with the first that is asked for, and end
    with ``close``.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[K, Sequence[I]], Sequence[R]],
        most: int,
        threads: int = 1,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self.work, self.most, self._initializer = work, most, initializer
        self._waiting: deque[_Request[K, I, R]] = deque()
        self._asked: SimpleQueue[bool] = SimpleQueue()  # once a request; False ends a thread
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{n}") for n in range(threads)
        ]
        self._begun = self._closed = False
        self._changing = threading.Lock()

    def ask(self, key: K, items: Sequence[I]) -> Future[Sequence[R]]:
        """For at least one item. The future raises what ``work`` raises, Problem 503 where its
        turn came too late."""
        request: _Request[K, I, R] = _Request(key, items)
        with self._changing:
            if self._closed:
                request.answer.cancel()
                return request.answer
            if not self._begun:
                for thread in self._threads:
                    if thread.ident is None:  # there may have been no room for all before
                        thread.start()
                self._begun = True
            self._waiting.append(request)
        self._asked.put(True)
        return request.answer

    async def ask_all(self, key: K, items: Sequence[I]) -> list[R]:
        """Of all ``parts``."""
        return [result async for part in self.parts(key, items) for result in part]

    async def parts(self, key: K, items: Sequence[I]) -> AsyncGenerator[Sequence[R], None]:
        """Of ``most`` items, one after another, so that others' come in between; those after the
        first wait for as long as it takes."""
        for first in range(0, len(items), self.most):
            if first:
                deadlines.current().hold_out()
            yield await in_turn(self.ask(key, items[first : first + self.most]))

    def close(self) -> None:
        """What has begun comes to its end, the rest is cancelled; nothing waits for that."""
        with self._changing:
            self._closed = True
            for request in self._waiting:
                request.answer.cancel()
        for _ in self._threads:
            self._asked.put(False)

    def _run(self) -> None:
        if self._initializer is not None:
            self._initializer()
        while self._asked.get():
            self._do([request for request in self._take() if request.begin()])

    def _take(self) -> list[_Request[K, I, R]]:
        """The oldest, and with it what there is room for; nothing where it went with others."""
        batch: list[_Request[K, I, R]] = []
        room = self.most
        with self._changing:
            for request in [*self._waiting]:
                if not batch or (request.key == batch[0].key and len(request.items) <= room):
                    room -= len(request.items)
                    batch.append(request)
                    self._waiting.remove(request)
        return batch

    def _do(self, batch: list[_Request[K, I, R]]) -> None:
        if not batch:
            return
        try:
            with timing.collected() as spent:
                items = [item for request in batch for item in request.items]
                results = self.work(batch[0].key, items)
        except BaseException as error:
            for request in batch:
                request.answer.set_exception(error)
            return
        done = 0
        for request in batch:
            for name, seconds in spent.items():
                timing.add(name, seconds, request.spent)
            request.answer.set_result(results[done : done + len(request.items)])
            done += len(request.items)
