"""What reads the input of strangers. Each target is called with damaged bytes.

A target returns if the input was handled, whether it was accepted or refused, and raises for what
must not happen.
"""

import io
import json
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import uvicorn

from gpq.errors import DecodeLimit
from gpq.pixels import formats
from harness.images import png
from service.app import create_app
from service.concurrency.work import Work
from service.database.records import Mark
from service.decoding.pool import DecodePool
from service.decoding.process import ProcessLimits
from service.decoding.task import Task
from service.errors import SourceError
from service.http.middleware.request_head import LimitedProtocol
from service.index import index_file
from service.index.index import Codes
from service.settings import Settings
from service.sources.opening import open_source
from tests.image_cases import CASES

Call = Callable[[bytes], None]
MIB = 2**20
TASK = Task(((32, 64),))
MOST_ENTRIES = 1000
ORIGIN = index_file.Origin("d" * 32, "m" * 64, 3)


@dataclass(frozen=True)
class Target:
    """``seeds``: whole inputs, which are damaged. ``opened`` yields what is called with them."""

    seeds: Sequence[bytes]
    opened: Callable[[Path], AbstractContextManager[Call]]


@contextmanager
def _images(folder: Path) -> Iterator[Call]:
    """No image crashes its process, takes too long or causes an unexpected error."""
    ended: list[bytes] = []
    tried = b""
    pool = DecodePool(1, ProcessLimits(10, 10_000_000, 512 * MIB), lambda: ended.append(tried))

    def decode(data: bytes) -> None:
        nonlocal tried
        tried = data
        (made,) = pool.run(TASK, [data], [Work()])
        assert not isinstance(made, DecodeLimit), made
        assert "log has the details" not in str(made), made
        assert not ended, "the process ended"

    try:
        yield decode
    finally:
        pool.close()


def _source(suffix: str) -> Callable[[Path], AbstractContextManager[Call]]:
    @contextmanager
    def opened(folder: Path) -> Iterator[Call]:
        """No source raises anything but SourceError, and no entry anything but OSError."""
        path = folder / f"source{suffix}"
        (folder / "1.png").write_bytes(png(1))

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(SourceError):
                source = open_source(path, folder, MIB)
                source.count(Event())
                for entry in islice(source.entries(Event()), MOST_ENTRIES):
                    with suppress(OSError):
                        assert len(entry.read()) <= MIB

        yield read

    return opened


@contextmanager
def _index_files(folder: Path) -> Iterator[Call]:
    path = folder / "index"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        found = index_file.load(path, ORIGIN)
        assert found is None or found[1].packed.shape == (len(found[1].seqs), 3)

    yield load


@contextmanager
def _requests(folder: Path) -> Iterator[Call]:
    """Every reply is an HTTP reply with a status below 500, and the service goes on."""
    settings = Settings(
        database_url=f"sqlite:///{folder}/fuzz.db", image_store="none", host="127.0.0.1"
    )
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, http=LimitedProtocol, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and app.state.runtime.ready):
        time.sleep(0.05)
    address = server.servers[0].sockets[0].getsockname()

    def send(data: bytes) -> None:
        with socket.create_connection(address, timeout=10) as connection:
            with suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            received = b""
            with suppress(OSError):
                while part := connection.recv(MIB):
                    received += part
        for line in received.split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 "):
                assert line[9:10] in b"1234" or line[9:12] == b"503", line

    try:
        yield send
    finally:
        server.should_exit = True
        thread.join()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for n in range(3):
            member = tarfile.TarInfo(f"kind/{'ä' * 60}{n}.png")
            member.size = len(png(n))
            archive.addfile(member, io.BytesIO(png(n)))
    return buffer.getvalue()


def _index_file_seed() -> bytes:
    rng = np.random.default_rng(0)
    codes = Codes(np.arange(9, dtype=np.int64), rng.integers(0, 256, (9, 3), dtype=np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed"
        index_file.save(path, ORIGIN, Mark(9, 1.0), codes)
        return path.read_bytes()


def request_seeds() -> list[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    image = part % (b"image", b'; filename="x"', png(1))
    images = part % (b"images", b'; filename="x"', png(1))
    fields = part % (b"ids", b"", b'["a"]') + part % (b"metadata", b"", b'[{"a": 1}]')
    search = json.dumps({"id": "a", "k": 3}).encode()
    bodies = [
        (b"POST /search", b"multipart/form-data; boundary=b", image + b"--b--\r\n"),
        (b"POST /index", b"multipart/form-data; boundary=b", images + fields + b"--b--\r\n"),
        (b"POST /search", b"application/json", search),
        (b"PATCH /images/a", b"application/json", b'{"metadata": {"n": [1, 2.5, null, "x"]}}'),
        (b"GET /images?limit=5&cursor=0", b"text/plain", b""),
        (b"DELETE /images/a", b"text/plain", b""),
    ]
    head = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
    return [head % (line, kind, len(body), body) for line, kind, body in bodies]


def targets() -> dict[str, Target]:
    formats.formats()  # lets Pillow write HEIF
    rows = b'{"path": "1.png", "id": "a", "metadata": {"n": [1, "x"]}}\n{"path": "../1.png"}\n'
    table = b'path,id,metadata\n1.png,a,"{""n"": 1}"\n"2,.png",b,\n'
    return {
        "images": Target([make() for make in CASES.values()], _images),
        "tar": Target([_tar()], _source(".tar")),
        "jsonl": Target([rows], _source(".jsonl")),
        "csv": Target([table], _source(".csv")),
        "index file": Target([_index_file_seed()], _index_files),
        "requests": Target(request_seeds(), _requests),
    }
