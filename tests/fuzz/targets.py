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
from base64 import urlsafe_b64decode, urlsafe_b64encode
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
from service.errors import InvalidCursor, InvalidFilter, SourceError
from service.filters import grammar
from service.http.middleware.request_head import LimitedProtocol
from service.http.problems import Problem
from service.http.requests.bodies import parse_json
from service.index import index_file
from service.index.index import Codes
from service.search import cursor
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
def _filters(folder: Path) -> Iterator[Call]:
    """A filter is refused with InvalidFilter, or chooses images of any metadata."""
    stored = [None, "{}", '{"price": 3, "tags": ["a", 1], "size": {"width": 2}}', '{"n": 1e999}']

    def parse(data: bytes) -> None:
        with suppress(Problem, InvalidFilter):
            chosen = grammar.parse(parse_json(data, "filter"))
            for metadata in stored:
                assert chosen.matches(metadata) in (True, False)

    yield parse


@contextmanager
def _cursors(folder: Path) -> Iterator[Call]:
    """A cursor that was changed is refused with InvalidCursor, also if it is signed again."""

    def decode(data: bytes) -> None:
        for text in (data, urlsafe_b64encode(data)):
            with suppress(InvalidCursor):
                cursor.decode(text.decode("latin-1"), b"key")

    yield decode


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


def _filter_seeds() -> list[bytes]:
    whole = {
        "brand": "acme", "price": {"lt": 20.5, "gte": -1}, "tags": {"any": ["red", 1, True]},
        "made": {"gt": {"date": "2026-03-01T10:00:00+02:00"}}, "size.width": {"exists": False},
        "or": [{"a\\.b": {"prefix": "x"}}, {"not": {"n": {"all": [1, 2]}}}], "sold": None,
    }  # fmt: skip
    return [json.dumps(whole).encode(), json.dumps({"and": [whole] * 3}).encode()]


def _cursor_seed() -> bytes:
    table = np.zeros((12, 16), np.float32)
    made = cursor.Cursor("m", table, cursor.LastHit(0.5, 7), "image", {"n": 1}, ["x"], 10, -1.0)
    return urlsafe_b64decode(made.encode(b"key"))


def request_seeds() -> list[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    image = part % (b"image", b'; filename="x"', png(1))
    images = part % (b"images", b'; filename="x"', png(1))
    fields = part % (b"ids", b"", b'["a"]') + part % (b"metadata", b"", b'[{"a": 1}]')
    search = json.dumps({"id": "a", "k": 3}).encode()
    grouped = json.dumps(
        {
            "id": "a", "filter": {"n": {"lt": 2}}, "group_by": "n", "group_size": 2,
            "facets": ["n", "size.width"], "region": {"x": 0.1, "y": 0, "width": 0.5, "height": 1},
        }
    ).encode()  # fmt: skip
    examples = json.dumps({"positive": [{"id": "a", "weight": 2}], "pages": True}).encode()
    bodies = [
        (b"POST /search", b"multipart/form-data; boundary=b", image + b"--b--\r\n"),
        (b"POST /index", b"multipart/form-data; boundary=b", images + fields + b"--b--\r\n"),
        (b"POST /search", b"application/json", search),
        (b"POST /search", b"application/json", grouped),
        (b"POST /search", b"application/json", examples),
        (b"POST /search/copies", b"application/json", b'{"id": "a", "distance": 5}'),
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
        "filters": Target(_filter_seeds(), _filters),
        "cursors": Target([_cursor_seed()], _cursors),
        "requests": Target(request_seeds(), _requests),
    }
