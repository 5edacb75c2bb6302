"""Keeps the catalogue equal to a folder while its files change."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from threading import Event

from sqlalchemy.exc import SQLAlchemyError
from watchfiles import Change, watch
from watchfiles._rust_notify import WatchfilesRustInternalError

from gpq.system.folders import files_below
from service.database.job_records import Job, MirroredEntry
from service.database.store import Store
from service.errors import JobError, SourceError, StorageFull, TooMuchGone, Unavailable
from service.jobs.importer import Importer
from service.jobs.mirror import Mirror
from service.sources.entries import id_of
from service.sources.files import SomeFiles

LOOK_MS = 1000  # between looks at changes, which come together
SETTLE_MS = LOOK_MS // 2  # a file is imported when it has not changed for so long
RETRY_SECONDS = 30  # until everything is looked at again, after the database did not answer
# JobError: another process imports the folder, or did so until it was killed just now.
OUTAGES = (SQLAlchemyError, Unavailable, StorageFull, OSError, JobError, SourceError)

FullPass = Callable[[], Job]  # imports the whole folder, and returns the job


class Watcher:
    """Imports new and changed files of a folder and deletes the images of files that are gone.

    Changes come from the system (inotify on Linux); what it misses is found by a pass over the
    whole folder every ``every`` seconds. ``full_pass`` makes it. ``tell`` prints what happens.
    """

    def __init__(
        self,
        store: Store,
        importer: Importer,
        root: Path,
        full_pass: FullPass,
        every: float,
        tell: Callable[[str], object],
        max_bytes: int,
        *,
        delete_all: bool,
    ) -> None:
        self.store, self.importer, self.root = store, importer, root
        self.full_pass, self.every, self.tell, self.max_bytes = full_pass, every, tell, max_bytes
        self.delete_all = delete_all
        self.stop = Event()
        self._next = 0.0  # when the next full pass is due
        self._job: Job | None = None  # of the last full pass

    def run(self) -> None:
        """Returns when ``stop`` is set. Raises SourceError if the folder cannot be watched."""
        missing = False
        while not self.stop.is_set():
            place = self._place()
            if place is not None:
                self._watch(place)
            elif not missing:
                self.tell(f"{self.root} is not there; waiting for it")
            missing = place is None
            if missing:
                self.stop.wait(LOOK_MS / 1000)

    def _watch(self, place: tuple[int, int]) -> None:
        """Watches the folder as long as it is at the same place of the same disk."""
        try:
            # The system collects changes from here on, also while a pass is made.
            for changes in watch(
                self.root,
                watch_filter=None,
                debounce=2 * LOOK_MS,
                step=SETTLE_MS,
                stop_event=self.stop,
                rust_timeout=LOOK_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                if self.stop.is_set():
                    return
                if self._place() != place:
                    self._next = 0.0
                    return
                self._take(changes)
        except FileNotFoundError:
            return  # it vanished just now
        except WatchfilesRustInternalError:  # a name that is not UTF-8; a full pass can read it
            self._next = 0.0
        except OSError as error:
            raise SourceError(
                f"{self.root} cannot be watched: {error}; on Linux, fs.inotify.max_user_watches "
                "limits the folders"
            ) from error

    def _place(self) -> tuple[int, int] | None:
        """Returns which folder of which disk it is, or None if there is none."""
        try:
            found = self.root.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _take(self, changes: Iterable[tuple[Change, str]]) -> None:
        try:
            if time.monotonic() >= self._next:
                self._job = self.full_pass()
                self._next = time.monotonic() + self.every
                return
            if changes and self._job is not None:
                self._apply(changes, self._job)
        except OUTAGES as error:
            reason = str(error).partition("\n")[0]
            self.tell(f"trying again in {RETRY_SECONDS} seconds: {reason}")
            self._next = time.monotonic() + RETRY_SECONDS
        except TooMuchGone as error:
            self.tell(str(error))

    def _apply(self, changes: Iterable[tuple[Change, str]], job: Job) -> None:
        """Imports what is new or changed, and deletes what is gone."""
        paths = sorted({path for _, name in changes if self._counts(path := Path(name))})
        mirror = Mirror(self.store, job.source)
        present = [file for path in paths for file in _files(path)]
        run = _Run(job, self.stop, self.tell)
        if present:
            self.importer.run(SomeFiles(self.root, present, self.max_bytes), run, mirror)
        gone = self._gone(job.source, [self._name(path) for path in paths if not path.exists()])
        deleted = 0
        if gone:
            if not self.root.is_dir():
                raise TooMuchGone(len(gone), self.store.mirrors.count(job.source))
            deleted = mirror.delete(gone, all_of_them=self.delete_all)
        if present or gone:
            done = [run.outcome, f"{deleted} deleted" if gone else ""]
            self.tell(", ".join(filter(None, done)) or "nothing to store")

    def _gone(self, source: str, names: list[str]) -> list[MirroredEntry]:
        """Returns what is remembered of files, and of folders, that are not there any more."""
        ids = {id_of(name): name for name in names}
        found = self.store.mirrors.known(source, [*ids])
        folders = [name for id, name in ids.items() if id not in found]
        gone = {
            each.id: each
            for folder in folders
            if not any(folder.startswith(f"{other}/") for other in folders)
            for each in self.store.mirrors.below(source, folder)
        }
        return [each for each in (found | gone).values() if not (self.root / each.name).exists()]

    def _counts(self, path: Path) -> bool:
        """Returns whether a path is below the folder, and no part of it is hidden."""
        parts = Path(self._name(path)).parts
        return bool(parts) and not any(part.startswith(".") for part in parts)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""


class _Run:
    """A short import that is no job of its own; it tells what could not be used."""

    def __init__(self, job: Job, stop: Event, tell: Callable[[str], object]) -> None:
        self.job, self.stop, self.tell = replace(job, done=0, cursor=""), stop, tell
        self.outcome = ""

    def expect(self, total: int, done: int | None = None) -> None:
        pass

    def advance(self, entries: int, cursor: str, failures: list[tuple[str, str]]) -> None:
        for name, reason in failures:
            self.tell(f"{name}: {reason}")


def _files(path: Path) -> Iterable[Path]:
    """Returns the file, or the files of a folder that was moved here."""
    return files_below(path) if path.is_dir() else [path] if path.is_file() else []
