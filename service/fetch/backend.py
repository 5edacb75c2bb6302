"""Connects to the addresses of servers that may be asked, and to no others."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from ipaddress import ip_address

import anyio
import httpcore

from service.errors import FetchFailed, FetchRefused
from service.fetch.rules import Target, is_public

MOST_ADDRESSES, CONNECT_SECONDS = 4, 3.0  # of a server that are tried, and for each of them


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to one target. Resolves its name once, checks every address, and connects to one of
    those that it checked, so that the name cannot lead elsewhere afterwards."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises FetchRefused if an address of the host is not public, and must be."""
        if (host.lower().rstrip("."), port) != (self.target.host, self.target.port):
            raise FetchRefused(f"{host} is not the server that was checked")
        addresses = await _resolve(host, port)
        if self.target.public and not all(is_public(ip_address(each)) for each in addresses):
            raise FetchRefused(f"{host} has an address that is not public")
        failure: Exception | None = None
        for address in addresses[:MOST_ADDRESSES]:
            try:
                seconds = CONNECT_SECONDS if timeout is None else min(timeout, CONNECT_SECONDS)
                return _Closing(
                    await self._plain.connect_tcp(
                        address, port, seconds, local_address, socket_options
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise FetchRefused("only servers on a network are asked")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Closing(httpcore.AsyncNetworkStream):
    """A connection that is closed when it is given up during its TLS handshake, which httpcore
    leaves open then."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


async def _resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a host, each once, without zones. Raises FetchFailed."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"{host} cannot be found") from error
    return list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in found))
