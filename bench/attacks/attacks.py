"""What attackers do.

Each attack is a function that gets an ``Attack``, and returns when it has its replies or the time
of the attack is over.
"""

import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httpx

from harness import hostile
from harness.images import png
from harness.server import Server
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import request_seeds
from tests.image_cases import CASES

MIB = 2**20
BATCH = 50  # damaged images in one request


class Attack:
    """The connections of an attacker, which are closed when it ends.

    ``seconds``: how long the attack takes at most. ``seed``: for attacks that use random numbers.
    ``statuses``: of the replies that the attacker has read.
    """

    def __init__(self, server: Server, seconds: float, seed: str = "") -> None:
        self.server, self.random = server, random.Random(seed)
        self.statuses: Counter[str] = Counter()
        self._until = time.monotonic() + seconds
        self._stack = ExitStack()

    def __enter__(self) -> "Attack":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def left(self) -> float:
        """Seconds until the attack is over; a little more than none."""
        return max(self._until - time.monotonic(), 0.01)

    def connect(self) -> socket.socket:
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        address = (host, int(port))
        return self._stack.enter_context(socket.create_connection(address, self.left))

    def post(self, path: str, files: list[tuple[str, bytes]], **fields: str) -> bytes:
        """Returns the bytes of a request with a form."""
        form = [(name, ("x", data)) for name, data in files]
        request = httpx.Request("POST", f"{self.server.url}{path}", files=form, data=fields)
        body = request.read()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {request.headers['content-type']}\r\n\r\n"
        return head.encode() + body

    def exchange(self, connection: socket.socket, request: bytes) -> None:
        """Sends a request and reads the beginning of the reply."""
        with suppress(OSError):
            connection.settimeout(self.left)
            connection.sendall(request)
        self.read(connection)

    def read(self, connection: socket.socket) -> None:
        """Reads the beginning of a reply and counts its status."""
        with suppress(OSError):
            connection.settimeout(self.left)
            line = connection.recv(12)
            if line.startswith(b"HTTP/1.1 "):
                self.statuses[line[9:12].decode("ascii", "replace")] += 1


def one_file(data: bytes) -> Callable[[Attack], None]:
    """The file is sent to POST /index, and the reply is awaited."""

    def run(attack: Attack) -> None:
        request = attack.post("/index", [("images", data)], ids='["attack"]')
        attack.exchange(attack.connect(), request)

    return run


def hang_up(attack: Attack) -> None:
    """1,000 BMPs, and the client goes after a second."""
    with attack.connect() as connection:
        connection.sendall(attack.post("/index", [("images", hostile.bmp_runs(8))] * 1000))
        time.sleep(1)


def many_large(attack: Attack) -> None:
    """Eight clients send images of 100 megapixels with transparency."""
    request = attack.post("/search", [("image", hostile.transparent_png())])
    connections = [attack.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        attack.read(connection)


def unfinished(attack: Attack) -> None:
    """1,100 requests without an end of their headers."""
    for _ in range(1100):
        with suppress(OSError):
            attack.connect().sendall(b"GET /stats HTTP/1.1\r\n")
    time.sleep(attack.left)


def half_open(attack: Attack) -> None:
    """64 bodies that do not come."""
    head = attack.post("/index", [("images", b"x" * 1000)]).partition(b"\r\n\r\n")[0]
    for _ in range(64):
        attack.connect().sendall(head + b"\r\n\r\n")
    time.sleep(attack.left)


def half_open_text(attack: Attack) -> None:
    """20 forms with four text fields of 17 MiB and no end."""
    head = b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    for _ in range(20):
        with suppress(OSError):
            connection = attack.connect()
            connection.sendall(head)
            for name in (b"ids", b"metadata", b"model", b"more"):
                part = b'\r\n--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
                connection.sendall(part + bytes(17 * MIB))
    time.sleep(min(10, attack.left))


def unread(attack: Attack) -> None:
    """100 clients ask for a page of images with much metadata, and read nothing."""
    metadata = '[{"a": "' + "x" * 15_000 + '"}]'
    for n in range(1000):
        if attack.left < 1:
            return
        attack.server.index(png(n), ids=f'["unread{n}"]', metadata=metadata)
    for _ in range(100):
        with suppress(OSError):
            attack.connect().sendall(b"GET /images?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(attack.left)


def long_header(attack: Attack) -> None:
    """200 MiB of one header."""
    with attack.connect() as connection, suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ")
        for _ in range(200):
            connection.sendall(b"x" * MIB)


def damaged_images(attack: Attack) -> None:
    """Damaged images of every format, in requests of BATCH, one after the other."""
    seeds = [make() for make in CASES.values()]
    ids = "[" + ", ".join(f'"damaged{n}"' for n in range(BATCH)) + "]"
    while attack.left > 0.1:
        files = [("images", mutated(attack.random, seeds)) for _ in range(BATCH)]
        with attack.connect() as connection:
            attack.exchange(connection, attack.post("/index", files, ids=ids))


def damaged_requests(attack: Attack) -> None:
    """Damaged requests, one after the other."""
    seeds = request_seeds()
    while attack.left > 0.1:
        with attack.connect() as connection, suppress(OSError):
            connection.sendall(mutated(attack.random, seeds))
            connection.shutdown(socket.SHUT_WR)
            attack.read(connection)


CLIENTS: dict[str, Callable[[Attack], None]] = {
    "1,000 BMPs, client hangs up": hang_up,
    "8 × 100 megapixels with transparency": many_large,
    "1,100 unfinished requests": unfinished,
    "64 half-open bodies": half_open,
    "20 half-open forms of text": half_open_text,
    "100 unread replies": unread,
    "200 MiB of one header": long_header,
}
LONG: dict[str, Callable[[Attack], None]] = {
    "damaged images": damaged_images,
    "damaged requests": damaged_requests,
}


def single() -> dict[str, Callable[[Attack], None]]:
    """Returns the attacks that are measured one by one, by name."""
    return {name: one_file(make()) for name, make in hostile.FILES.items()} | CLIENTS


def every() -> dict[str, Callable[[Attack], None]]:
    """Returns all attacks by name."""
    return single() | LONG
