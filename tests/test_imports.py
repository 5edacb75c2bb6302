import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gpq import artifact
from service import artifacts, imports
from service.encoder import Encoder
from service.imports import Import
from service.ingest import Ingest
from service.jobrun import JobRun
from service.migrate import migrate
from service.originals import NoOriginals
from service.records import Job
from service.sources import Entry, Folder, Manifest, Source
from service.store import Store
from tests.images import png

FILES, SIZE, LIMIT = 100, 20_000, 100_000


class Counted:
    """A source, and the most bytes of it that were read and not yet stored."""

    def __init__(self, source: Source) -> None:
        self.source, self.count = source, source.count
        self.most = self._read = self._stored = 0
        self._counting = threading.Lock()

    def entries(self) -> Iterator[Entry]:
        for entry in self.source.entries():
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
def test_few_large_files_are_in_memory_at_once(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(imports, "IMPORT_BATCH_BYTES", LIMIT)
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
    model = artifact.load(random_model)
    store = Store(f"sqlite:///{tmp_path}/gpq.db")
    migrate(store.database)
    store.models.adopt(model.id, artifacts.read(random_model))
    number = store.jobs.ask("import", str(root), by_service=False)
    with closing(store), closing(Encoder(10_000, 2, 1)) as encoder:
        with JobRun(store.jobs, number, watch=source.watch) as run:
            Import(store, Ingest(encoder, NoOriginals()), [model]).run(source, run)
        assert (run.job.done, run.job.failed) == (FILES, 0)
    assert SIZE < source.most <= (imports.BATCHES + encoder.networks) * (LIMIT + SIZE)
