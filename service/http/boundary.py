"""Keeps web pages of other origins from using the service through a visitor's browser.

A page can send requests to any address that its visitor reaches, this service on the visitor's own
machine included. It can also make its own name resolve to that address (DNS rebinding), so that the
browser takes the service for the page's server.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.handlers import response
from service.http.problems import Problem
from service.settings import Settings, is_loopback

PROBES = frozenset({"/livez", "/readyz"})  # are sent to addresses
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES = frozenset({"same-origin", "none"})  # of Sec-Fetch-Site; none: typed by the user
PORTS = {"http": 80, "https": 443}
# Defaults; a route may send others. /docs has a script of its own in its HTML.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
DOCS = "/docs"
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Boundary:
    """ASGI middleware that refuses requests of other origins' pages.

    A request must name this service in its Host header, by a loopback name or one of
    GPQ_ALLOWED_HOSTS, or it gets 421. If keys protect a service beyond loopback and no hosts are
    set, any name will do. A request that may change something must come from a page of the service
    or from no page (Sec-Fetch-Site, W3C Fetch Metadata), or it gets 403. Browsers without this
    header send an Origin, which must be that of the service.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = frozenset(settings.allowed_hosts)
        self.any_host = bool(
            settings.api_keys and not self.hosts and not is_loopback(settings.host)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem:
            await response(Request(scope), problem)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if not self.any_host and scope["path"] not in PROBES and not self._own(hosts):
            name = ", ".join(hosts) or "no host"
            return Problem(
                421,
                "wrong-host",
                f"this service does not answer for {name}: use its own name, or add the name to "
                "GPQ_ALLOWED_HOSTS",
            )
        if scope["method"] not in SAFE_METHODS and not _from_own_page(scope, headers):
            return Problem(
                403, "cross-origin", "a web page of another origin cannot change this service"
            )
        return None

    def _own(self, hosts: Iterable[str]) -> bool:
        names = [_origin(f"//{host}")[1] for host in hosts]
        return bool(names) and all(is_loopback(name) or name in self.hosts for name in names)


class ResponseHeaders:
    """ASGI middleware that adds HEADERS to every reply that does not set them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"] == DOCS:
                    headers.setdefault("Content-Security-Policy", DOCS_POLICY)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _from_own_page(scope: Scope, headers: Headers) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in OWN_SITES
    if origin is None:
        return True  # not a browser
    own = f"{scope['scheme']}://{headers.get('host', '')}"
    return _origin(origin) == _origin(own)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Returns the scheme, the name without a last dot, and the port of a URL, in lower case."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None
    return parts.scheme, (parts.hostname or "").removesuffix("."), port
