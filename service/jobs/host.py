"""Runs jobs that were requested over HTTP, one at a time, each in a new process."""

import logging
import os
import subprocess
import sys

from service.concurrency.periodic import PeriodicThread
from service.database.job_records import Job
from service.database.store import Store
from service.errors import SourceError
from service.jobs.progress import REPORT_SECONDS, owner
from service.settings import STOP_SECONDS
from service.sources.import_folder import ImportFolder

POLL_SECONDS = 0.1
WAITING = "waits for a service whose GPQ_IMPORT_FOLDER holds the source"
log = logging.getLogger("gpq.service")


class JobHost:
    """A thread that starts a process for each waiting job and watches it.

    A separate process can run at a low priority, and if it dies, the service survives. An import
    whose source is not in the import folder of this service is left to other services.
    """

    def __init__(self, store: Store, folder: ImportFolder) -> None:
        self.store, self.folder = store, folder
        self._thread = PeriodicThread("jobs", self._run_next, REPORT_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Interrupts the running job; this or another service continues it later."""
        self._thread.stop(timeout=2 * STOP_SECONDS)

    def _run_next(self) -> None:
        waiting = self.store.jobs.waiting()
        if job := next(filter(self._can_run, waiting), None):
            self._run(job.number)

    def _can_run(self, job: Job) -> bool:
        if job.kind != "import":
            return True
        try:
            self.folder.open(job.source)
        except SourceError as error:
            if not job.detail.startswith(WAITING):
                detail = f"{WAITING}; {owner(os.getpid())} lacks it: {error}"
                self.store.jobs.explain(job.number, detail)
            return False
        return True

    def _run(self, number: int) -> None:
        log.info("job %d begins", number)
        command = [sys.executable, "-m", "service", "jobs", "run", str(number)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        stopping = self._thread.stopping
        while process.poll() is None and not stopping.wait(POLL_SECONDS):
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # entries that it has not reported are done again
        status = process.wait()
        log.info("job %d: exit status %d", number, status)
        if status < 0 and not stopping.is_set():
            detail = f"its process was ended by signal {-status}; did it run out of memory?"
            self.store.jobs.mark_lost(number, owner(process.pid), detail)
