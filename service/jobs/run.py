"""A job that this process is at."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from service.database.jobs import JobStore
from service.database.records import Job, JobError, JobState
from service.settings import JOB_BEAT_SECONDS

log = logging.getLogger("gpq.service")


def owner(pid: int) -> str:
    """How a process of this machine is named in the table."""
    return f"{socket.gethostname()[:48]}-{pid}"


class JobRun:
    """As a context: what it is told is stored every second, and at the end how that was.

    stop is set where the job is to end: it was cancelled, or ``break_off`` is called. watch is
    called with each progress. Raises JobError where another process is at it, or it is done.
    """

    def __init__(
        self,
        jobs: JobStore,
        number: int,
        *,
        leave: JobState = "stopped",
        watch: Callable[[Job], object] = lambda job: None,
    ) -> None:
        self.owner = owner(os.getpid())
        claimed = jobs.claim(self.owner, number)
        if claimed is None:
            raise JobError(f"job {number} does not wait: another process is at it, or it has ended")
        self.job = replace(claimed, state="running")
        self.outcome = ""  # what there is to know of it when it has ended well
        self.stop = threading.Event()
        self._jobs, self._leave, self._watch = jobs, leave, watch
        self._failures: list[tuple[str, str]] = []
        self._anew = False
        self._since = time.monotonic()
        self._mine = True
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._run, name="job-beat", daemon=True)

    def __enter__(self) -> "JobRun":
        self._beat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._beat.join()
        state: JobState = "failed" if error else self._leave if self.stop.is_set() else "done"
        with self._changing:
            self.job = replace(self.job, state=state, detail=_shown(str(error or self.outcome)))
        self._tell()

    def expect(self, total: int, done: int | None = None) -> None:
        """So many entries in all; ``done`` anew where they are not those of the last time."""
        with self._changing:
            self.job = replace(self.job, total=total)
            if done is not None:
                self.job = replace(self.job, done=done, failed=0, cursor="")
                self._failures, self._anew = [], True
        self._watch(self.job)

    def advance(self, entries: int, cursor: str, failures: list[tuple[str, str]]) -> None:
        """So many more are done; cursor stands for all that are. failures: names and reasons."""
        with self._changing:
            self.job = replace(
                self.job,
                done=self.job.done + entries,
                failed=self.job.failed + len(failures),
                cursor=cursor,
            )
            self._failures += [(_shown(name), _shown(reason)) for name, reason in failures]
        self._watch(self.job)

    def say(self, detail: str) -> None:
        """What there is to know of it while it is under way."""
        with self._changing:
            self.job = replace(self.job, detail=detail)
        self._watch(self.job)

    def break_off(self) -> None:
        """After what is at hand; it can go on later."""
        self.stop.set()

    def _run(self) -> None:
        while not self._ended.wait(JOB_BEAT_SECONDS):
            try:
                self._tell()
            except SQLAlchemyError as error:
                log.warning("a job cannot say how far it is: %s", error)
            except Exception:  # the thread must live: a silent job is given to others
                log.exception("a job cannot say how far it is")

    def _tell(self) -> None:
        with self._changing:
            seconds = self.job.seconds + time.monotonic() - self._since
            self._since = time.monotonic()
            self.job = replace(self.job, seconds=seconds)
            job, failures, anew = self.job, self._failures, self._anew
            self._failures, self._anew = [], False
        try:
            self._mine = self._jobs.tell(job, self.owner, failures, anew=anew)
        except SQLAlchemyError:
            with self._changing:
                self._failures, self._anew = failures + self._failures, anew or self._anew
            raise
        if not self._mine:
            self.stop.set()


def _shown(text: str) -> str:
    """What every database can keep: no NUL, no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
