"""Defines the image store and opens it."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from service.originals.keys import Parts
from service.originals.local import LocalOriginals
from service.originals.remote import RemoteOriginals

SECRETS = re.compile(r"//[^/]*@")  # user name and password of a URL


class Originals(Protocol):
    """An image store. Its keys are sha256 hex digests, so uploaded names never become paths.

    An original is durable before its row is written. Only ``sweep`` removes it, after a grace
    period: an image stored again meanwhile keeps its bytes, and a copy of the store made after a
    copy of the database still holds its originals. Methods raise Unavailable if the store does not
    answer.
    """

    def claim(self, database: str, head: int) -> bool:
        """Records that a database, whose feed is at ``head``, uses the store.

        Returns whether it may sweep; see ``claims``. Raises StorageFull.
        """

    def put(self, originals: Mapping[str, bytes]) -> None:
        """Stores originals by sha256, replacing damaged ones; they are durable on return.

        Raises StorageFull.
        """

    def has(self, sha256: str, size: int) -> bool:
        """Returns whether an original of ``size`` bytes is stored."""

    def get(self, sha256: str) -> bytes | None:
        """Returns the bytes, or None if they are not kept."""

    def parts(self, sha256: str) -> Parts | None:
        """Opens the bytes for reading in parts, or returns None if they are not kept."""

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Sets aside unused originals older than the grace period, and removes those set aside for
        as long. Returns how many were removed."""


class NoOriginals:
    """Keeps nothing, so that searches by id use the stored code."""

    def claim(self, database: str, head: int) -> bool:
        return False

    def put(self, originals: Mapping[str, bytes]) -> None:
        pass

    def has(self, sha256: str, size: int) -> bool:
        return True

    def get(self, sha256: str) -> bytes | None:
        return None

    def parts(self, sha256: str) -> Parts | None:
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return 0


def open_originals(location: str) -> Originals:
    """Opens ``none``, a folder, a file:// URL, or the URL of any installed fsspec driver.

    Raises ValueError if the driver is not installed, or the file is on another machine. The error
    does not repeat the user name, password and query of a URL.
    """
    if location == "none":
        return NoOriginals()
    url = urlsplit(location)
    shown = SECRETS.sub("//", location.partition("?")[0])
    if not url.scheme:
        return LocalOriginals(Path(location))
    if url.scheme == "file":
        if url.netloc not in ("", "localhost"):
            raise ValueError(f"GPQ_IMAGE_STORE={shown}: file:// reaches files of this machine only")
        return LocalOriginals(Path(unquote(url.path)))
    try:
        return RemoteOriginals(location)
    except ImportError as error:
        raise ValueError(f"GPQ_IMAGE_STORE={shown}: {error}") from None
    except ValueError:
        raise ValueError(f"GPQ_IMAGE_STORE={shown}: no driver understands this URL") from None
