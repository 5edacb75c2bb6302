"""Keeps web pages of other origins from using the service through a visitor's browser.

A page can send requests to any address that its visitor reaches, this service on the visitor's own
machine included. It can also make its own name resolve to that address (DNS rebinding), so that the
browser takes the service for the page's server.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.handlers import HEADERS, response
from service.http.middleware.connection import CONNECTION
from service.http.problems import Problem
from service.settings import Settings, host_name, is_loopback

PROBES = frozenset({"/livez", "/readyz"})  # are sent to addresses
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES = frozenset({"same-origin", "none"})  # of Sec-Fetch-Site; none: typed by the user
PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
ORIGIN = re.compile(rf"(https?)://{HOST.pattern}")
MOST_ECHOED = 200  # characters of a Host header that the error repeats
DOCS = "/docs"  # its HTML has a script of its own
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Boundary:
    """ASGI middleware that refuses requests of other origins' pages.

    A request must name this service in its Host header, by a loopback name or one of
    GPQ_ALLOWED_HOSTS, or it gets 421. If keys protect a service beyond loopback and no hosts are
    set, any name will do. A request must come from a page of the service or from no page
    (Sec-Fetch-Site, W3C Fetch Metadata), or it gets 403; other pages may only link to the service.
    Browsers without this header send an Origin with a request that may change something, which must
    be that of the service.
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
        if scope["path"] in PROBES and scope["method"] in SAFE_METHODS:
            return None
        if not (self.any_host or (hosts and all(map(self._own, hosts)))):
            name = ", ".join(hosts)[:MOST_ECHOED] or "no host"
            return Problem(
                421,
                "wrong-host",
                f"this service does not answer for {name}: use its own name, or add the name to "
                "GPQ_ALLOWED_HOSTS",
            )
        if not _from_own_page(scope, headers):
            return Problem(403, "cross-origin", "a web page of another origin sent this request")
        return None

    def _own(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        name = host_name(found[1]) if found else ""
        return is_loopback(name) or name in self.hosts


class ResponseHeaders:
    """ASGI middleware that adds HEADERS to every reply that does not set them, and drops what is
    sent to a client that is gone."""

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
            try:
                await send(message)
            except RuntimeError:  # uvloop's, until the server has heard of the end
                if not scope.get("extensions", {}).get(CONNECTION, {}).get("closing", bool)():
                    raise

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _from_own_page(scope: Scope, headers: Headers) -> bool:
    safe = scope["method"] in SAFE_METHODS
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        linked = safe and headers.get("sec-fetch-mode") == "navigate"
        return linked or site in OWN_SITES
    if safe or origin is None:  # not a browser, or an old one
        return True
    theirs, own = _origin(origin), _origin(f"{scope['scheme']}://{headers.get('host', '')}")
    return theirs is not None and theirs == own


def _origin(text: str) -> tuple[str, str, int] | None:
    """Returns the scheme, the name and the port of an origin, or None if it is not one."""
    found = ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found.groups()
    return scheme, host_name(host), int(port or PORTS[scheme])
