"""Finds out who sends a request, by its API key."""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from service.concurrency.periodic import PeriodicThread
from service.database.job_records import Key, Scope
from service.database.keys import KeyTable
from service.errors import InvalidRequest, Refused
from service.settings import ID_PATTERN

SCOPES: tuple[Scope, ...] = ("search", "index", "admin")
SECRET_PREFIX = "gpq_"  # by which tools that look for leaked secrets find ours
SECRET_BYTES = 32
LATEST = datetime(2200, 1, 1, tzinfo=UTC).timestamp()
MAX_NAME, MAX_PREFIX = 64, 128
REFRESH_SECONDS = 1.0  # how long another process accepts a key that was revoked
MOST_KNOWN = 10_000  # pairs of an address and a key
USE_SECONDS = 60.0  # between updates of when a key was last used


@dataclass(frozen=True)
class Caller:
    """Who sends a request. ``prefix``: what ids must begin with; "" for any."""

    name: str
    scopes: frozenset[Scope]
    prefix: str = ""
    number: int | None = None

    def may(self, scopes: Iterable[Scope]) -> bool:
        """Whether the caller has one of the scopes, or is an administrator."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


ANYBODY = Caller("anonymous", frozenset(SCOPES))


class KeyRing:
    """The keys of the settings, and a copy of those in the database, which follows it.

    ``configured``: the secrets of the settings; they may do everything.
    """

    def __init__(self, table: KeyTable, configured: Sequence[str]) -> None:
        self.table = table
        self._configured = {
            _sha256(secret): Caller(f"GPQ_API_KEYS[{place}]", frozenset(SCOPES))
            for place, secret in enumerate(configured)
        }
        self._keys: dict[str, Key] = {}
        self._known: dict[tuple[str, str], None] = {}  # address and hash, the oldest first
        self._uses: dict[int, float] = {}
        self.loaded = False  # whether the keys of the database are known
        self._changing, self._reading = threading.Lock(), threading.Lock()
        self._thread = PeriodicThread("keys", self._follow, REFRESH_SECONDS)

    def start(self) -> None:
        """Follows the database from now on."""
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    @property
    def required(self) -> bool:
        """Whether requests need a key: there is one, even if it has expired."""
        return bool(self._configured or self._keys)

    def is_configured(self, secret: str) -> bool:
        """Whether a secret is one of the settings."""
        return _sha256(secret) in self._configured

    def known(self, address: str, secret: str) -> bool:
        """Whether an address has used a secret successfully not long ago."""
        return (address, _sha256(secret)) in self._known

    def find(self, secret: str, address: str) -> Caller | None:
        """Returns who has the secret; None if nobody, or the key has expired or was revoked."""
        sha256 = _sha256(secret)
        caller = self._find(sha256)
        if caller is not None:
            self._known[address, sha256] = None
            if len(self._known) > MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
        return caller

    def _find(self, sha256: str) -> Caller | None:
        if sha256 in self._configured:
            return self._configured[sha256]
        key, now = self._keys.get(sha256), time.time()
        if key is None or not key.valid(now):
            return None
        if now - self._uses.get(key.number, key.used or 0.0) > USE_SECONDS:
            with self._changing:
                self._uses[key.number] = now
        return Caller(f"{key.name} ({key.number})", key.scopes, key.prefix, key.number)

    def refresh(self) -> None:
        """Reads the keys of the database. Raises SQLAlchemyError."""
        with self._reading:  # or an older answer could replace a newer one
            self._keys = {key.sha256: key for key in self.table.all()}
            self.loaded = True

    def _follow(self) -> None:
        """Known keys stay while the database does not answer."""
        self.refresh()
        stored = {key.number: key.used or 0.0 for key in self._keys.values()}
        with self._changing:
            newer = {n: used for n, used in self._uses.items() if used > stored.get(n, used)}
        if newer:
            self.table.note_uses(newer)


def create(
    table: KeyTable,
    name: str,
    scopes: Iterable[Scope],
    prefix: str = "",
    expires: float | None = None,
    configured: bool = False,
) -> tuple[Key, str]:
    """Adds a key, and returns it with its secret, which is not kept.

    ``configured``: whether the settings have keys, which can manage others. Raises InvalidRequest,
    SQLAlchemyError; Refused if nobody could manage keys afterwards.
    """
    scopes = frozenset(scopes)
    if not scopes or not scopes <= set(SCOPES):
        raise InvalidRequest(f"scopes: give at least one of {', '.join(SCOPES)}")
    if not (0 < len(name) <= MAX_NAME and name.isprintable()):
        raise InvalidRequest(f"name: 1 to {MAX_NAME} printable characters")
    if prefix:
        _check_prefix(prefix, scopes)
    if expires is not None and not time.time() < expires < LATEST:
        raise InvalidRequest("expires: give a time from now to the year 2199")
    if not configured and "admin" not in scopes and not any(map(manages_keys, table.all())):
        raise Refused(
            "from the first key on, every request needs one: create one with the scope admin first"
        )
    secret = SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return table.add(name, _sha256(secret), scopes, prefix, expires), secret


def manages_keys(key: Key) -> bool:
    return "admin" in key.scopes and key.valid(time.time())


def _check_prefix(prefix: str, scopes: frozenset[Scope]) -> None:
    if not re.fullmatch(ID_PATTERN, prefix):
        raise InvalidRequest("prefix: it has characters that ids cannot have")
    if "admin" in scopes:
        raise InvalidRequest("prefix: a key with the scope admin may do everything")


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
