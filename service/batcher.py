"""What threads ask for at the same time, done at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service import patience, stages
from service.patience import Patience
from service.problems import Problem

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass(eq=False)
class _Request(Generic[R]):
    """Of one thread, in parts. turn: that its thread need not wait any more, as all is done or
    the next batch is for it to do."""

    parts: int
    waits: Patience = field(default_factory=patience.current)
    asked: float = field(default_factory=time.perf_counter)
    results: dict[int, Sequence[R]] = field(default_factory=dict)  # by their places
    error: BaseException | None = None
    spent: stages.Spent = field(default_factory=dict)
    turn: threading.Event = field(default_factory=threading.Event)

    @property
    def done(self) -> bool:
        return self.error is not None or len(self.results) == self.parts

    def begin(self) -> None:
        """What has begun is brought to its end; what comes too late for that ends here."""
        if "queue" not in self.spent:
            self.spent["queue"] = time.perf_counter() - self.asked
            try:
                self.waits.spend(self.spent["queue"])
            except Problem as error:
                self.error = error

    def result(self) -> list[R]:
        for name, seconds in self.spent.items():
            stages.add(name, seconds)
        if self.error is not None:
            raise self.error
        return [result for place in sorted(self.results) for result in self.results[place]]


@dataclass(eq=False)
class _Part(Generic[K, I, R]):
    request: _Request[R]
    key: K
    place: int
    items: Sequence[I]


class Batcher(Generic[K, I, R]):
    """Nobody waits for a batch to fill: who finds no one at work does what is there, of one key
    and at most so many items; what comes meanwhile is the next batch, and whose request is the
    oldest then does that. Nobody waits for a batch without a part of its own.

    work: a key and items -> a result for each. Waiting threads are bounded by who asks.
    """

    def __init__(self, work: Callable[[K, Sequence[I]], Sequence[R]], most: int) -> None:
        self.work, self.most = work, most
        self._waiting: deque[_Part[K, I, R]] = deque()
        self._at_work = False  # some thread
        self._changing = threading.Lock()

    def do(self, key: K, items: Sequence[I]) -> list[R]:
        """Raises what ``work`` raises, Problem 503 where it would be too late."""
        if not items:
            return []
        places = range(0, len(items), self.most)
        request: _Request[R] = _Request(len(places))
        with self._changing:
            for at in places:
                self._waiting.append(_Part(request, key, at, items[at : at + self.most]))
            wait, self._at_work = self._at_work, True
        if wait:
            request.turn.wait()
        if not (wait and request.done):
            try:
                while not request.done:
                    self._do(self._take())
            finally:
                self._hand_over()
        return request.result()

    def _hand_over(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting[0].request.turn.set()
            else:
                self._at_work = False

    def _take(self) -> list[_Part[K, I, R]]:
        with self._changing:
            batch = [self._waiting.popleft()]
            room = self.most - len(batch[0].items)
            for part in [part for part in self._waiting if part.key == batch[0].key]:
                if len(part.items) <= room:
                    room -= len(part.items)
                    batch.append(part)
                    self._waiting.remove(part)
        return batch

    def _do(self, batch: list[_Part[K, I, R]]) -> None:
        for part in batch:
            part.request.begin()
        good = [part for part in batch if part.request.error is None]
        try:
            if good:
                self._work(good)
        except BaseException as error:
            for part in good:
                part.request.error = error
        for part in batch:
            if part.request.done:
                self._end(part.request)

    def _work(self, batch: list[_Part[K, I, R]]) -> None:
        with stages.collected() as spent:
            results = self.work(batch[0].key, [item for part in batch for item in part.items])
        done = 0
        for part in batch:
            for name, seconds in spent.items():
                part.request.spent[name] = part.request.spent.get(name, 0.0) + seconds
            part.request.results[part.place] = results[done : done + len(part.items)]
            done += len(part.items)

    def _end(self, request: _Request[R]) -> None:
        """Of one that failed, no other part is done any more."""
        with self._changing:
            for part in [part for part in self._waiting if part.request is request]:
                self._waiting.remove(part)
        request.turn.set()
