"""What threads ask for at the same time, done at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service import patience, stages

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass(eq=False)
class _Task(Generic[K, I, R]):
    key: K
    items: Sequence[I]
    first: "_Task[K, I, R] | None" = None  # of the parts of one request, where it is not this
    patience: float = field(default_factory=patience.seconds)
    asked: float = field(default_factory=time.perf_counter)
    spent: stages.Spent = field(default_factory=dict)
    outcome: Future[Sequence[R]] = field(default_factory=Future)

    @property
    def late(self) -> bool:
        """What has begun is brought to its end; what has not is not, nor any part of it."""
        if self.first is not None:
            return self.first.outcome.exception() is not None
        return self.waited > self.patience

    @property
    def waited(self) -> float:
        return time.perf_counter() - self.asked


class Batcher(Generic[K, I, R]):
    """Nobody waits for a batch to fill: who finds no one at work does what is there, of one key
    and at most so many items; what comes meanwhile is the next batch.

    work: a key and items -> a result for each. Waiting threads are bounded by who asks.
    """

    def __init__(self, work: Callable[[K, Sequence[I]], Sequence[R]], most: int) -> None:
        self.work, self.most = work, most
        self._waiting: deque[_Task[K, I, R]] = deque()
        self._changing = threading.Lock()
        self._working = threading.Lock()

    def do(self, key: K, items: Sequence[I]) -> list[R]:
        """Raises what ``work`` raises, Problem 503 where it would be too late."""
        parts = range(0, len(items), self.most)
        mine: list[_Task[K, I, R]] = []
        for at in parts:
            mine.append(_Task(key, items[at : at + self.most], mine[0] if mine else None))
        with self._changing:
            self._waiting.extend(mine)
        with self._working:
            while not all(task.outcome.done() for task in mine):
                self._do(self._take())
        results: list[R] = []
        for task in mine:
            for name, seconds in task.spent.items():
                stages.add(name, seconds)
            results += task.outcome.result()
        return results

    def _take(self) -> list[_Task[K, I, R]]:
        with self._changing:
            batch = [self._waiting.popleft()]
            room = self.most - len(batch[0].items)
            for task in [task for task in self._waiting if task.key == batch[0].key]:
                if len(task.items) <= room:
                    room -= len(task.items)
                    batch.append(task)
                    self._waiting.remove(task)
        return batch

    def _do(self, batch: list[_Task[K, I, R]]) -> None:
        for task in batch:
            task.spent["queue"] = task.waited
        late = [task for task in batch if task.late]
        for task in late:
            task.outcome.set_exception(patience.too_late())
        batch = [task for task in batch if task not in late]
        if not batch:
            return
        try:
            with stages.collected() as spent:
                results = self.work(batch[0].key, [item for task in batch for item in task.items])
        except BaseException as error:
            for task in batch:
                task.outcome.set_exception(error)
            return
        done = 0
        for task in batch:
            task.spent |= spent
            task.outcome.set_result(results[done : done + len(task.items)])
            done += len(task.items)
