"""Pictures of a source into the catalogue: decoded side by side, encoded and stored by many."""

import hashlib
import io
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import SEEK_END
from itertools import islice

from gpq.model.model import Model
from gpq.system.processors import processors
from service.catalogue.ingest import Ingest, Prepared, Upload, digest
from service.catalogue.metadata import encode_metadata
from service.concurrency.groups import groups
from service.database.records import Put
from service.database.store import Store
from service.jobs.run import JobRun
from service.jobs.sources import Entry, Source, SourceError
from service.problems import Problem
from service.settings import IMPORT_BATCH, IMPORT_BATCH_BYTES

BATCHES = 3  # under way beside those that are encoded: one is stored, one decoded, one read
TOGETHER = 16  # entries that a thread reads and has decoded
WAITING_THREADS = 4  # beside those that decode: for disks, and the image store


@dataclass(frozen=True)
class Failure:
    reason: str


Outcome = Prepared | Failure | None  # none: it is stored as it is already


class Import:
    """An entry that cannot be used is told to the job; the others go on. Entries that are stored
    already with the same bytes and metadata are only read.

    Raises OtherModel where the database wants codes of other models than these meanwhile.
    """

    def __init__(self, store: Store, ingest: Ingest, models: Collection[Model]) -> None:
        self.store, self.ingest, self.models = store, ingest, models
        self._broken = False
        self._counts: Counter[str] = Counter()  # of pictures, by what became of them
        self._names = hashlib.sha256()  # of the entries done

    def run(self, source: Source, run: JobRun) -> None:
        """Go on where the job was broken off. Raises SourceError, Problem 503 and 507,
        SQLAlchemyError."""
        run.expect(source.count())
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
            under_way: deque[Future[None]] = deque()
            recent: deque[Counter[str]] = deque(maxlen=most + 1)
            for batch in batches:
                if run.stop.is_set():
                    break
                recent.append(Counter(entry.id for entry in batch))
                # Of an id that comes twice the later one stays: none of them is known yet.
                times = sum(recent, Counter())
                known = self.store.reader.unchanged([e.id for e in batch if times[e.id] == 1])
                prepared = [
                    pool.submit(self._prepare, batch[n : n + TOGETHER], known)
                    for n in range(0, len(batch), TOGETHER)
                ]
                encoded = encoder.submit(self._encode, prepared)
                under_way.append(writer.submit(self._store, batch, encoded, run))
                if len(under_way) == most:
                    under_way.popleft().result()
            for written in under_way:
                written.result()

    def _prepare(
        self, entries: list[Entry], known: dict[str, tuple[str, str | None]]
    ) -> list[Outcome]:
        read = [self._read(entry, known.get(entry.id)) for entry in entries]
        uploads = [each for each in read if isinstance(each, Upload)]
        prepared = self.ingest.prepare(uploads, self.models)
        self.ingest.keep(each for each in prepared if isinstance(each, Prepared))
        for upload in uploads:
            upload.file.close()  # its bytes need not wait for the batch
        outcomes = map(_outcome, prepared)
        return [next(outcomes) if isinstance(each, Upload) else each for each in read]

    def _read(self, entry: Entry, known: tuple[str, str | None] | None) -> Upload | Failure | None:
        try:
            metadata = encode_metadata(entry.metadata, "metadata")
            upload = Upload(io.BytesIO(entry.read()), entry.name, entry.id, metadata)
        except (SourceError, OSError) as error:
            return Failure(str(error))
        except Problem as problem:
            return Failure(problem.detail)
        if known is not None:
            sha256 = digest(upload)
            size = upload.file.seek(0, SEEK_END)
            if known == (sha256, metadata) and self.ingest.originals.has(sha256, size):
                return None
        return upload

    def _encode(self, prepared: list[Future[list[Outcome]]]) -> tuple[list[Outcome], list[Put]]:
        outcomes = [outcome for each in prepared for outcome in each.result()]
        ready = {each.put.id: each for each in outcomes if isinstance(each, Prepared)}
        return outcomes, self.ingest.encode(list(ready.values()), self.models)

    def _store(
        self, batch: list[Entry], encoded: Future[tuple[list[Outcome], list[Put]]], run: JobRun
    ) -> None:
        if self._broken:  # what follows must not be told as done before what failed
            return
        self._broken = True
        outcomes, puts = encoded.result()
        if puts:
            self._counts.update(stored.status for stored in self.store.put(puts))
        self._counts["unchanged"] += outcomes.count(None)
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

    def _remaining(self, source: Source, run: JobRun) -> Iterator[Entry]:
        """Those after what the job has done; all, where the source has other names there."""
        entries = source.entries()
        for entry in islice(entries, run.job.done):
            self._pass(entry)
        if run.job.done == 0 or self._names.hexdigest() == run.job.cursor:
            return entries
        self._names = hashlib.sha256()
        run.expect(source.count(), done=0)
        return source.entries()

    def _pass(self, entry: Entry) -> None:
        self._names.update(entry.name.encode("utf-8", "surrogatepass") + b"\0")


def _outcome(prepared: Prepared | Problem) -> Outcome:
    return Failure(prepared.detail) if isinstance(prepared, Problem) else prepared
