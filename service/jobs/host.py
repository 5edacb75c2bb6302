"""The jobs that were asked for by HTTP, done one at a time by a process of their own."""

import logging
import os
import subprocess
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.database.records import Job
from service.database.store import Store
from service.jobs.import_folder import ImportFolder
from service.jobs.run import owner
from service.jobs.sources import SourceError
from service.settings import JOB_BEAT_SECONDS, STOP_SECONDS

POLL_SECONDS = 0.1
WAITS = "it waits for a service that has it below its GPQ_IMPORT_FOLDER"
log = logging.getLogger("gpq.service")


class JobHost:
    """A thread that waits for jobs, and for the process that is at one. What is not below the
    import folder here is left to other services.

    Its own process: it can be nice to searches, and where it dies the service lives.
    """

    def __init__(self, store: Store, folder: ImportFolder) -> None:
        self.store, self.folder = store, folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way waits for the next process, or goes on in another one."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(JOB_BEAT_SECONDS):
            try:
                waiting = self.store.jobs.waiting()
                if job := next(filter(self._can_do, waiting), None):
                    self._do(job.number)
            except SQLAlchemyError as error:
                log.warning("jobs: %s", error)
            except Exception:
                log.exception("jobs: an unexpected error")

    def _can_do(self, job: Job) -> bool:
        if job.kind != "import":
            return True
        try:
            self.folder.open(job.source)
        except SourceError as error:
            if not job.detail.startswith(WAITS):
                me = owner(os.getpid())
                self.store.jobs.explain(job.number, f"{WAITS}; {me} has not: {error}")
            return False
        return True

    def _do(self, number: int) -> None:
        log.info("job %d begins", number)
        command = [sys.executable, "-m", "service", "jobs", "run", str(number)]
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while worker.poll() is None and not self._stop.wait(POLL_SECONDS):
            pass
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()  # what it has not told is done again
        status = worker.wait()
        log.info("job %d: exit status %d", number, status)
        if status < 0 and not self._stop.is_set():
            why = f"its process was ended by signal {-status}; was there memory enough?"
            self.store.jobs.lost(number, owner(worker.pid), why)
