"""Imports the images of a source: decodes them in parallel, encodes and writes them in batches."""

import hashlib
import io
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import SEEK_END
from itertools import islice
from threading import Event
from typing import Protocol

from gpq.model.model import Model
from gpq.system.processors import processors
from service.catalogue.ingest import Ingest, PreparedImage, Upload, digest
from service.catalogue.metadata import encode_metadata
from service.concurrency.groups import groups
from service.database.job_records import Job, MirroredEntry
from service.database.records import Put
from service.database.store import Store
from service.errors import InvalidRequest
from service.jobs.mirror import Mirror
from service.sources.entries import Entry
from service.sources.opening import Source

IMPORT_BATCH = 64  # images encoded and stored together
IMPORT_BATCH_BYTES = 64 * 2**20  # files in memory for one batch
BATCHES = 3  # in progress beside those being encoded: one is stored, one decoded, one read
TOGETHER = 16  # entries that a thread reads and has decoded
WAITING_THREADS = 4  # beside the decoding threads: they wait for disks and the image store


@dataclass(frozen=True)
class Failure:
    """Why an entry cannot be used."""

    reason: str


@dataclass(frozen=True)
class Same:
    """An entry whose bytes, with this sha256, are stored already."""

    sha256: str


Outcome = PreparedImage | Failure | Same


class Run(Protocol):
    """What an import needs of a job: where it stands, and whom to tell."""

    job: Job
    stop: Event
    outcome: str

    def expect(self, total: int, done: int | None = None) -> None: ...

    def advance(self, entries: int, cursor: str, failures: list[tuple[str, str]]) -> None: ...


class Import:
    """Stores the entries of a source that can be used, and reports the others to the job.

    Entries stored already with the same bytes and metadata are only read. ``mirror``: remembers
    the entries; those that have not changed since are not even read.
    """

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        models: Collection[Model],
        mirror: Mirror | None = None,
    ) -> None:
        self.store, self.ingest, self.models, self.mirror = store, ingest, models, mirror
        self._broken = False
        self._counts: Counter[str] = Counter()  # images by what happened to them
        self._names = hashlib.sha256()  # of the entries done

    def run(self, source: Source, run: Run) -> None:
        """Imports the source, or continues an interrupted import.

        Raises ModelChanged if models are added or deleted meanwhile, SourceError, Unavailable,
        StorageFull, SQLAlchemyError.
        """
        total = source.count(run.stop)
        if run.stop.is_set():
            return
        run.expect(total)
        remaining = self._remaining(source, run)
        batches = groups(remaining, IMPORT_BATCH, lambda entry: entry.size(), IMPORT_BATCH_BYTES)
        threads = processors() + WAITING_THREADS
        networks = self.ingest.encoder.networks
        most = BATCHES + networks
        with (
            ThreadPoolExecutor(threads) as pool,
            ThreadPoolExecutor(networks) as encoder,
            ThreadPoolExecutor(1) as writer,
        ):
            writing: deque[Future[None]] = deque()
            recent: deque[Counter[str]] = deque(maxlen=most + 1)
            for batch in batches:
                if run.stop.is_set():
                    break
                recent.append(Counter(entry.id for entry in batch))
                # If an id comes twice, the later entry must win, so neither may be skipped.
                times = sum(recent, Counter())
                known = self.store.images.unchanged([e.id for e in batch if times[e.id] == 1])
                seen = self.mirror.known(batch) if self.mirror else {}
                prepared = [
                    pool.submit(self._prepare, batch[n : n + TOGETHER], known, seen)
                    for n in range(0, len(batch), TOGETHER)
                ]
                encoded = encoder.submit(self._encode, prepared)
                writing.append(writer.submit(self._write, batch, encoded, run))
                if len(writing) == most:
                    writing.popleft().result()
            for written in writing:
                written.result()

    def _prepare(
        self,
        entries: list[Entry],
        known: dict[str, tuple[str, str | None]],
        seen: dict[str, MirroredEntry],
    ) -> list[Outcome]:
        read = [self._read(each, known.get(each.id), seen.get(each.id)) for each in entries]
        uploads = [each for each in read if isinstance(each, Upload)]
        prepared = self.ingest.prepare(uploads, self.models)
        self.ingest.keep(each for each in prepared if isinstance(each, PreparedImage))
        for upload in uploads:
            upload.file.close()  # frees its memory before the batch is complete
        outcomes = iter(
            each if isinstance(each, PreparedImage) else Failure(str(each)) for each in prepared
        )
        return [next(outcomes) if isinstance(each, Upload) else each for each in read]

    def _read(
        self,
        entry: Entry,
        known: tuple[str, str | None] | None,
        seen: MirroredEntry | None,
    ) -> Upload | Failure | Same:
        try:
            metadata = encode_metadata(entry.metadata, "metadata")
            same = seen and seen.stamp == entry.stamp and known == (seen.sha256, metadata)
            if seen and same and self.ingest.originals.has(seen.sha256, entry.size()):
                return Same(seen.sha256)
            upload = Upload(io.BytesIO(entry.read()), entry.name, entry.id, metadata)
        except (InvalidRequest, OSError) as error:
            return Failure(str(error))
        if known is not None:
            sha256 = digest(upload)
            size = upload.file.seek(0, SEEK_END)
            if known == (sha256, metadata) and self.ingest.originals.has(sha256, size):
                return Same(sha256)
        return upload

    def _encode(self, prepared: list[Future[list[Outcome]]]) -> tuple[list[Outcome], list[Put]]:
        outcomes = [outcome for each in prepared for outcome in each.result()]
        ready = {each.put.id: each for each in outcomes if isinstance(each, PreparedImage)}
        return outcomes, self.ingest.encode(list(ready.values()), self.models)

    def _write(
        self, batch: list[Entry], encoded: Future[tuple[list[Outcome], list[Put]]], run: Run
    ) -> None:
        if self._broken:  # batches after a failed one must not be reported as done
            return
        self._broken = True
        outcomes, puts = encoded.result()
        if puts:
            self._counts.update(put.status for put in self.store.images.put(puts))
        self._counts["unchanged"] += sum(isinstance(each, Same) for each in outcomes)
        if self.mirror is not None:
            self._remember(self.mirror, batch, outcomes)
        failures = [
            (entry.name, outcome.reason)
            for entry, outcome in zip(batch, outcomes, strict=True)
            if isinstance(outcome, Failure)
        ]
        for entry in batch:
            self._pass(entry)
        run.advance(len(batch), self._names.hexdigest(), failures)
        run.outcome = ", ".join(f"{n} {status}" for status, n in sorted(self._counts.items()) if n)
        self._broken = False

    def _remember(self, mirror: Mirror, batch: list[Entry], outcomes: list[Outcome]) -> None:
        pairs = [*zip(batch, outcomes, strict=True)]
        stored = [(each, out.sha256) for each, out in pairs if isinstance(out, Same)]
        stored += [(each, out.put.sha256) for each, out in pairs if isinstance(out, PreparedImage)]
        mirror.see(stored, (each for each, outcome in pairs if isinstance(outcome, Failure)))

    def _remaining(self, source: Source, run: Run) -> Iterator[Entry]:
        """Returns the entries after those done; all of them if the source has changed before."""
        entries = source.entries(run.stop)
        for entry in islice(entries, run.job.done):
            self._pass(entry)
        if run.stop.is_set():
            return iter(())
        if run.job.done == 0 or self._names.hexdigest() == run.job.cursor:
            return entries
        self._names = hashlib.sha256()
        total = source.count(run.stop)
        if not run.stop.is_set():
            run.expect(total, done=0)
        return source.entries(run.stop)

    def _pass(self, entry: Entry) -> None:
        self._names.update(entry.name.encode("utf-8", "surrogatepass") + b"\0")
