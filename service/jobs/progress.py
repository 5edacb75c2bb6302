"""Reports the progress of the job that this process runs, and learns when the job must stop."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from service.concurrency.periodic import PeriodicThread
from service.database.job_records import Job, JobState
from service.database.jobs import JobTable
from service.errors import JobError

REPORT_SECONDS = 1.0  # between reports of progress


def owner(pid: int) -> str:
    """Returns the name of a process of this machine in the jobs table."""
    return f"{socket.gethostname()[:48]}-{pid}"


class JobRun:
    """A context in which a job runs. It writes the progress every second, and the end state.

    ``stop`` is set when the job must stop: it was cancelled, or ``interrupt`` was called.
    ``interrupted_state``: the state of a job that was interrupted. ``watch``: called with each
    progress. Raises JobError if another process runs the job, or it has ended.
    """

    def __init__(
        self,
        jobs: JobTable,
        number: int,
        *,
        interrupted_state: JobState = "stopped",
        watch: Callable[[Job], object] = lambda job: None,
    ) -> None:
        self.owner = owner(os.getpid())
        claimed = jobs.claim(self.owner, number)
        if claimed is None:
            raise JobError(f"job {number} is not waiting: another process runs it, or it has ended")
        self.job = replace(claimed, state="running")
        self.outcome = ""  # the detail of a job that ended well
        self.stop = threading.Event()
        self._jobs, self._interrupted_state, self._watch = jobs, interrupted_state, watch
        self._failures: list[tuple[str, str]] = []  # since the last report
        self._restarted = False
        self._since = time.monotonic()
        self._changing = threading.Lock()
        self._thread = PeriodicThread("job report", self._report, REPORT_SECONDS)

    def __enter__(self) -> "JobRun":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.stop(timeout=None)
        interrupted = self._interrupted_state if self.stop.is_set() else "done"
        state: JobState = "failed" if error else interrupted
        with self._changing:
            self.job = replace(self.job, state=state, detail=_storable(self._detail(error)))
        self._report()

    def _detail(self, error: BaseException | None) -> str:
        """Says what happened, without the paths of this machine, which are in the log."""
        if isinstance(error, OSError) and error.strerror:
            return f"{error.strerror}; the log has the details"
        return str(error or self.outcome)

    def expect(self, total: int, done: int | None = None) -> None:
        """Sets the number of entries. ``done``: restarts the job's count at that number."""
        with self._changing:
            self.job = replace(self.job, total=total)
            if done is not None:
                self.job = replace(self.job, done=done, failed=0, cursor="")
                self._failures, self._restarted = [], True
        self._watch(self.job)

    def advance(self, entries: int, cursor: str, failures: list[tuple[str, str]]) -> None:
        """Adds entries that are done, with their failures (name, reason).

        ``cursor``: identifies all entries done so far.
        """
        with self._changing:
            self.job = replace(
                self.job,
                done=self.job.done + entries,
                failed=self.job.failed + len(failures),
                cursor=cursor,
            )
            self._failures += [(_storable(name), _storable(reason)) for name, reason in failures]
        self._watch(self.job)

    def say(self, detail: str) -> None:
        """Sets the detail of the running job."""
        with self._changing:
            self.job = replace(self.job, detail=detail)
        self._watch(self.job)

    def interrupt(self) -> None:
        """Stops the job after the entries in progress; it can continue later."""
        self.stop.set()

    def _report(self) -> None:
        with self._changing:
            seconds = self.job.seconds + time.monotonic() - self._since
            self._since = time.monotonic()
            self.job = replace(self.job, seconds=seconds)
            job, failures, restarted = self.job, self._failures, self._restarted
            self._failures, self._restarted = [], False
        try:
            mine = self._jobs.report(job, self.owner, failures, restarted=restarted)
        except SQLAlchemyError:
            with self._changing:
                self._failures = failures + self._failures
                self._restarted = restarted or self._restarted
            raise
        if not mine:
            self.stop.set()


def _storable(text: str) -> str:
    """Replaces what databases cannot store: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
