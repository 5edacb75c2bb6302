import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gpq.engine import engines
from harness.images import png
from service.catalogue.ingest import Ingest
from service.database.job_records import Job
from service.database.migrate import migrate
from service.database.store import Store
from service.decoding.decoder import open_decoder
from service.jobs import importing
from service.jobs.importing import Import
from service.jobs.progress import JobRun
from service.models import artifacts
from service.models.encoder import Encoder
from service.originals.originals import NoOriginals
from service.settings import Settings
from service.sources.entries import Entry
from service.sources.files import Folder
from service.sources.manifest import Manifest
from service.sources.opening import Source

FILES, SIZE, LIMIT = 100, 20_000, 100_000


class Counted:
    """Wraps a source; ``most`` is the largest number of bytes read and not yet stored."""

    def __init__(self, source: Source) -> None:
        self.source, self.count = source, source.count
        self.most = self._read = self._stored = 0
        self._counting = threading.Lock()

    def entries(self, stop: threading.Event) -> Iterator[Entry]:
        for entry in self.source.entries(stop):
            yield replace(entry, read=lambda entry=entry: self._take(entry))

    def watch(self, job: Job) -> None:
        self._stored = job.done * SIZE

    def _take(self, entry: Entry) -> bytes:
        data = entry.read()
        with self._counting:
            self._read += len(data)
            self.most = max(self.most, self._read - self._stored)
        return data


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_an_import_holds_only_a_few_large_files_in_memory(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(importing, "IMPORT_BATCH_BYTES", LIMIT)
    root = tmp_path / "in"
    root.mkdir()
    for n in range(FILES):
        (root / f"{n}.png").write_bytes(png(n).ljust(SIZE, b"x"))
    if kind == "folder":
        source = Counted(Folder(root, None, SIZE))
    else:
        manifest = tmp_path / "m.csv"
        manifest.write_text("path\n" + "".join(f"in/{n}.png\n" for n in range(FILES)))
        source = Counted(Manifest(manifest, None, SIZE))
    model = engines.load(random_model)
    store = Store(f"sqlite:///{tmp_path}/gpq.db")
    migrate(store.database)
    store.models.adopt(model.id, artifacts.read(random_model))
    number = store.jobs.request("import", str(root), by_service=False)
    encoder, decoder = Encoder(), open_decoder(Settings(max_pixels=10_000, decode_threads=2))
    with closing(store), closing(encoder), closing(decoder):
        with JobRun(store.jobs, number, watch=source.watch) as run:
            Import(store, Ingest(decoder, encoder, NoOriginals()), [model]).run(source, run)
        assert (run.job.done, run.job.failed) == (FILES, 0)
    assert SIZE < source.most <= (importing.BATCHES + encoder.networks) * (LIMIT + SIZE)
