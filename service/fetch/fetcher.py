"""Fetches images from servers that GPQ_FETCH allows."""

import errno
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import BinaryIO, cast
from urllib.parse import urljoin, urlsplit

import anyio
import httpcore
from anyio import CapacityLimiter

from gpq import __version__
from service.errors import Busy, FetchFailed, FetchOff, FetchRefused, StorageFull
from service.fetch.backend import CheckedBackend
from service.fetch.rules import Rules, Target

MOST_URLS = 100  # of a request
FETCHED_TOGETHER, OF_A_REQUEST = 8, 2  # by this process, and by one request
MOST_REQUESTS = 16  # that fetch at the same time; more are refused
MOST_REDIRECTS = 3
SPOOLED_BYTES = 2**20  # of a file, from which on it is written to disk
REQUEST_SECONDS = 60  # for all images of a request
REDIRECTS = (301, 302, 303, 307, 308)
NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException)
HEADERS = (
    ("User-Agent", f"gpq-search/{__version__}"),
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),  # a compressed reply could be of any size
)

Fetched = BinaryIO | FetchRefused | FetchFailed


class Fetcher:
    """Fetches files of at most ``max_bytes``, each within ``seconds``. ``rules``: None if nothing
    may be fetched."""

    def __init__(self, rules: Rules | None, max_bytes: int, seconds: float) -> None:
        self.rules, self.max_bytes, self.seconds = rules, max_bytes, seconds
        self._turns, self._requests = CapacityLimiter(FETCHED_TOGETHER), 0
        self._tls = httpcore.default_ssl_context() if rules else None

    @asynccontextmanager
    async def file(self, url: str) -> AsyncIterator[BinaryIO]:
        """Opens the file at an address. Raises FetchOff, FetchRefused, FetchFailed."""
        async with self.files([url]) as (found,):
            if isinstance(found, FetchRefused | FetchFailed):
                raise found
            yield found

    @asynccontextmanager
    async def files(self, urls: Sequence[str]) -> AsyncIterator[list[Fetched]]:
        """Opens the files at some addresses, in order; an error takes the place of one that cannot
        be fetched.

        Together they have at most ``max_bytes``, and take at most REQUEST_SECONDS. Raises
        FetchOff, and FetchRefused if there are more than MOST_URLS.
        """
        found = await self._fetch_all(urls) if urls else []
        try:
            yield found
        finally:
            _close(found)

    async def _fetch_all(self, urls: Sequence[str]) -> list[Fetched]:
        if self.rules is None:
            raise FetchOff
        if len(urls) > MOST_URLS:
            raise FetchRefused(f"at most {MOST_URLS} images of a request are fetched")
        if self._requests == MOST_REQUESTS:
            raise Busy("too many requests fetch images from other servers")
        self._requests += 1
        try:
            return await self._fetch_each(urls)
        finally:
            self._requests -= 1

    async def _fetch_each(self, urls: Sequence[str]) -> list[Fetched]:
        budget, own = _Budget(self.max_bytes), CapacityLimiter(OF_A_REQUEST)
        late = FetchFailed(f"the images of this request take more than {REQUEST_SECONDS} seconds")
        found: list[Fetched] = [late] * len(urls)

        async def take(place: int, url: str) -> None:
            try:
                async with own, self._turns:
                    found[place] = await self._within_time(url, budget)
            except (FetchRefused, FetchFailed) as error:
                found[place] = error

        try:
            with anyio.move_on_after(REQUEST_SECONDS):
                async with anyio.create_task_group() as tasks:
                    for place, url in enumerate(urls):
                        tasks.start_soon(take, place, url)
        except BaseException:
            _close(found)
            raise
        return found

    async def _within_time(self, url: str, budget: "_Budget") -> BinaryIO:
        spooled = tempfile.SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115  (``files`` closes it)
        file = cast(BinaryIO, spooled)
        try:
            with anyio.fail_after(self.seconds):
                await self._follow(url, file, budget)
        except TimeoutError as error:
            file.close()
            raise FetchFailed(f"the server takes more than {self.seconds:g} seconds") from error
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    async def _follow(self, url: str, file: BinaryIO, budget: "_Budget") -> None:
        assert self.rules is not None
        for _ in range(MOST_REDIRECTS + 1):
            target = self.rules.checked(url)
            try:
                location = await self._get(target, file, budget)
            # What a server sends may be anything but HTTP.
            except (*NETWORK_ERRORS, httpcore.ProtocolError, ValueError, OSError) as error:
                raise FetchFailed(f"the server gave no usable reply: {_why(error)}") from error
            if location is None:
                return
            url = _joined(url, location)
        raise FetchFailed(f"the address leads to another one more than {MOST_REDIRECTS} times")

    async def _get(self, target: Target, file: BinaryIO, budget: "_Budget") -> str | None:
        """Writes the reply to the file; returns where a redirect leads."""
        # A pool of its own, so that no connection outlives the check of its address.
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=CheckedBackend(target)
            ) as pool,
            pool.stream("GET", _address(target), headers=[*HEADERS]) as reply,
        ):
            headers = {
                name.lower().decode("latin-1"): value.decode("latin-1")
                for name, value in reply.headers
            }
            if reply.status in REDIRECTS and "location" in headers:
                return headers["location"]
            if reply.status != HTTPStatus.OK:
                raise FetchFailed(f"the server answered with status {reply.status}")
            if headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed("the server sent a compressed reply")
            async for part in reply.aiter_stream():
                budget.check(file.tell() + len(part))
                _write(file, part)
            budget.take(file.tell())
        return None


def _close(fetched: Iterable[Fetched]) -> None:
    for each in fetched:
        if not isinstance(each, FetchRefused | FetchFailed):
            each.close()


class _Budget:
    """The bytes that the images of a request may still have."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def check(self, size: int) -> None:
        """Raises FetchFailed if one image has more than all may have."""
        if size > self.most:
            raise FetchFailed(f"the file has more than {self.most:,} bytes (GPQ_MAX_BODY_BYTES)")

    def take(self, size: int) -> None:
        """Raises FetchFailed if the images that are complete have too many bytes with this one."""
        if size > self.left:
            limit = f"more than {self.most:,} bytes (GPQ_MAX_BODY_BYTES)"
            raise FetchFailed(f"the images of this request have {limit}")
        self.left -= size


def _address(target: Target) -> httpcore.URL:
    """Returns the address as httpcore asks for it: with all of its path, ``;`` too."""
    parts = urlsplit(target.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    return httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=path)


def _write(file: BinaryIO, part: bytes) -> None:
    """Raises StorageFull."""
    try:
        file.write(part)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("the disk for temporary files is full") from error


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchFailed("the server leads to something that is not an address") from error


def _why(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
