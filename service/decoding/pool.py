"""Keeps decoding processes, and replaces those that end."""

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from gpq.errors import BrokenImage, DecodeLimit, ImageError
from service.concurrency.work import Work
from service.decoding.budget import PixelBudget
from service.decoding.process import DecodeProcess, Ended, Made, ProcessLimits, Unwanted
from service.decoding.task import Later, Output, Task
from service.errors import ClientGone, Unavailable
from service.telemetry import timing

REQUEST_LIMIT = (
    "the images of this request take more processor time than GPQ_REQUEST_SECONDS allows; send "
    "fewer at a time"
)
FILES_EACH = 10_000  # then a process is replaced, in case a decoder leaks memory
log = logging.getLogger("gpq.service")


class DecodePool:
    """``size`` processes, and one for large images that have to wait. As many threads may call
    ``run`` at the same time.

    ``killed``: is called when a process had to be killed, or ended by itself.
    """

    def __init__(
        self, size: int, limits: ProcessLimits, killed: Callable[[], object] = lambda: None
    ) -> None:
        self.size, self.limits, self._killed = size, limits, killed
        self._budget = PixelBudget(limits.max_pixels)
        self._places: SimpleQueue[_Place] = SimpleQueue()
        self._waiting_places: SimpleQueue[_Place] = SimpleQueue()
        self._all = [_Place(limits) for _ in range(size + 1)]
        for place in self._all[:-1]:
            self._places.put(place)
        self._waiting_places.put(self._all[-1])

    def start(self) -> None:
        """Starts the processes now; otherwise each starts with its first image."""
        for place in self._all[:-1]:
            place.start()

    def close(self) -> None:
        """Ends all processes, and the tasks in progress with Unavailable."""
        for place in self._all:
            place.close()
        for places in (self._places, self._waiting_places):
            idle = []
            with suppress(Empty):
                while True:
                    idle.append(places.get_nowait())
            for place in idle:
                place.end()
                places.put(place)  # for a thread that still comes; it gets Unavailable

    def run(self, task: Task, files: Sequence[bytes], works: Sequence[Work]) -> list[Made]:
        """Does a task, and returns an output or an error for each file; LATER for a large image
        that has to wait for others.

        ``works``: the request that each file belongs to. Raises Unavailable if no process can be
        started, ClientGone if all requests are abandoned.
        """
        return self._allowed(self._places, task, files, works)

    def run_waiting(self, task: Task, file: bytes, work: Work) -> Output | ImageError:
        """Does a task for one large image, when there is room, in a process of its own: the others
        go on meanwhile. Call it on one thread at a time. Raises as ``run``."""
        (made,) = self._allowed(self._waiting_places, task, [file], [work])
        assert not isinstance(made, Later)  # it has waited
        return made

    def _allowed(
        self,
        places: "SimpleQueue[_Place]",
        task: Task,
        files: Sequence[bytes],
        works: Sequence[Work],
    ) -> list[Made]:
        """Leaves out the files of requests that have taken too much time."""
        allowed = [n for n, work in enumerate(works) if work.decode_seconds > 0]
        made: list[Made] = [DecodeLimit(REQUEST_LIMIT)] * len(files)
        if allowed:
            place = places.get()
            try:
                found = self._run(
                    place, task, [files[n] for n in allowed], [works[n] for n in allowed]
                )
            finally:
                places.put(place)
            for n, each in zip(allowed, found, strict=True):
                made[n] = each
        return made

    def _run(
        self, place: "_Place", task: Task, files: Sequence[bytes], works: Sequence[Work]
    ) -> list[Made]:
        try:
            return self._try(place, task, files, works)
        except Ended as error:
            if len(files) > 1:  # finds out which of them it was
                alone = zip(files, works, strict=True)
                made = [self._alone(place, task, data, work) for data, work in alone]
                if not _wanted(works):
                    raise ClientGone from error
                return made
            if error.status == -signal.SIGPROF:
                works[0].decode_seconds -= self.limits.seconds
                return [self._why(error.status)]
        try:  # perhaps the kernel ended it, because others needed its memory
            return self._try(place, task, files, works)
        except Ended as error:
            return [self._why(error.status)]

    def _alone(self, place: "_Place", task: Task, data: bytes, work: Work) -> Made:
        try:
            return self._run(place, task, [data], [work])[0]
        except ClientGone as error:  # the others of the group still wait
            return BrokenImage(str(error))

    def _try(
        self, place: "_Place", task: Task, files: Sequence[bytes], works: Sequence[Work]
    ) -> list[Made]:
        """Raises Ended if the process ends."""
        if not _wanted(works):
            raise ClientGone
        process = place.start()
        taken = 0

        def admit(pixels: int) -> bool:
            nonlocal taken
            self._budget.give(taken)  # the image before is done
            taken = 0
            if place is not self._all[-1]:
                there_is_room = self._budget.take_now(pixels)
            elif not (there_is_room := self._budget.take(pixels, lambda: _wanted(works))):
                raise Unwanted
            taken = pixels if there_is_room else 0
            return there_is_room

        try:
            reply = process.run(task, files, admit, lambda: _wanted(works))
        except Unwanted as error:
            place.end()
            raise ClientGone from error
        except Ended as error:
            place.end()
            self._killed()
            if error.status > 0:
                raise Unavailable(
                    "the process that decodes images does not start; the log says why"
                ) from error
            raise
        finally:
            self._budget.give(taken)
        if process.files_done >= FILES_EACH:
            place.end()
        timing.current().add_cpu(reply.seconds)
        for work in works:
            work.decode_seconds -= reply.seconds / len(works)
        return reply.made

    def _why(self, status: int) -> ImageError:
        if status == -signal.SIGPROF:
            return DecodeLimit(
                f"decoding the image takes more than {self.limits.seconds:g} seconds of processor "
                "time"
            )
        log.warning("a decoding process ended: signal %d", -status)
        return BrokenImage(f"the process that decoded the image ended (signal {-status})")


class _Place:
    """A place for one process. ``start`` and ``end`` are called on one thread at a time."""

    def __init__(self, limits: ProcessLimits) -> None:
        self._limits = limits
        self._process: DecodeProcess | None = None
        self._closed = False
        self._changing = threading.Lock()

    def start(self) -> DecodeProcess:
        with self._changing:
            if self._closed:
                raise Unavailable("the service stops")
            if self._process is None:
                try:
                    self._process = DecodeProcess(self._limits)
                except OSError as error:
                    raise Unavailable(
                        f"no process can be started to decode images: {error.strerror}"
                    ) from error
            return self._process

    def end(self) -> None:
        with self._changing:
            if self._process is not None:
                self._process.close()
            self._process = None

    def close(self) -> None:
        with self._changing:
            self._closed = True
            if self._process is not None:
                self._process.kill()


def _wanted(works: Sequence[Work]) -> bool:
    return any(work.wanted() for work in works)
