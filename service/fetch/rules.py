"""Says which servers may be asked for images, and which addresses of theirs."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from service.errors import FetchRefused

OFF, PUBLIC = "off", "public"
PORTS = {"http": 80, "https": 443}
MAX_URL = 2048  # characters
HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
# Networks whose addresses lead to IPv4 addresses, and where those stand in them.
TRANSLATED = {ip_network("64:ff9b::/96"): 96, ip_network("2002::/16"): 16}
OF_THE_INTERNET = ip_network("2000::/3"), ip_network("64:ff9b::/96")
REFUSED = [
    ip_network("64:ff9b:1::/48"),  # NAT64 of a local network
    ip_network("2001::/32"),  # Teredo
    ip_network("192.88.99.0/24"),  # relays of 6to4
    ip_network("192.0.0.0/24"),  # protocols, and the metadata of Oracle
    ip_network("168.63.129.16/32"),  # the metadata of Azure, on a public address
]

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Server:
    """A server that may be asked. ``host``: a name, ``*.`` and a name for all names below it, or an
    address. ``port``: None for the usual ports of http and https; with a number the server may be
    in the operator's own network."""

    host: str
    port: int | None = None

    def is_meant(self, host: str, port: int, scheme: str) -> bool:
        if port != (PORTS[scheme] if self.port is None else self.port):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return host == self.host


@dataclass(frozen=True)
class Rules:
    """``servers``: that may be asked; None for every server with a public address."""

    servers: tuple[Server, ...] | None

    @classmethod
    def parse(cls, text: str) -> "Rules | None":
        """Returns the rules of GPQ_FETCH, or None if it is off. Raises ValueError."""
        if text.strip() == OFF:
            return None
        if text.strip() == PUBLIC:
            return cls(None)
        return cls(tuple(_server(each.strip()) for each in text.split(",")))

    def checked(self, url: str) -> "Target":
        """Returns what a URL asks for. Raises FetchRefused."""
        parts = _split(url)
        host, scheme = (parts.hostname or "").rstrip("."), parts.scheme
        port = PORTS[scheme] if parts.port is None else parts.port
        if self.servers is None:
            if port != PORTS[scheme]:
                raise FetchRefused(f"port {port} is not allowed: only those of http and https are")
            return Target(url, host, port, public=True)
        for server in self.servers:
            if server.is_meant(host, port, scheme):
                return Target(url, host, port, public=server.port is None)
        raise FetchRefused(f"{host[:255]}, port {port}, is not one of the servers in GPQ_FETCH")


@dataclass(frozen=True)
class Target:
    """A URL that may be fetched. ``public``: whether the address must be a public one."""

    url: str
    host: str
    port: int
    public: bool


def is_public(address: Address) -> bool:
    """Returns whether an address belongs to the public internet, and to no network of its own."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        for network, place in TRANSLATED.items():
            if address in network:
                return is_public(IPv4Address((int(address) >> (96 - place)) & 0xFFFFFFFF))
        if not any(address in network for network in OF_THE_INTERNET):
            return False
    if any(address.version == network.version and address in network for network in REFUSED):
        return False
    return address.is_global and not address.is_multicast


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL:
        raise FetchRefused(f"an address has at most {MAX_URL} characters")
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise FetchRefused("an address is written in printable ASCII, with %HH for other bytes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchRefused(f"not an address: {error}") from error
    if parts.scheme not in PORTS:
        raise FetchRefused("an address begins with http:// or https://")
    if not parts.hostname or port == 0:
        raise FetchRefused("the address names no server")
    if parts.username is not None or parts.password is not None:
        raise FetchRefused("an address with a user or a password is not fetched")
    return parts


def _server(text: str) -> Server:
    host, colon, port = text.lower().rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        host, port = text.lower(), ""
    host = host.removeprefix("[").removesuffix("]").rstrip(".")
    try:
        ip_address(host)
    except ValueError:
        if not HOST.fullmatch(host):
            raise ValueError(
                f"GPQ_FETCH: {text!r} is not a server: give off, public, or servers such as "
                "images.example.org, *.example.org or 10.0.0.5:9000, with commas between them"
            ) from None
    if port and not 0 < int(port) < 65536:
        raise ValueError(f"GPQ_FETCH: {text!r}: there is no port {port}")
    return Server(host, int(port) if port else None)
