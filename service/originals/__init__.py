"""Original bytes, addressed by their sha256; uploaded names never become paths.

An original is in its place before its row is written and is taken away only by ``sweep``, which
sets it aside for a grace period first: a picture stored again meanwhile keeps its bytes, and a copy
of this place those of a copy of the database that was made before it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from service.originals.keys import Parts
from service.originals.local import LocalOriginals
from service.originals.remote import RemoteOriginals


class Originals(Protocol):
    """Where originals are kept. Keys are sha256 hex digests."""

    def claim(self, database: str, head: int) -> bool:
        """Whether the place is that of this database alone, whose feed is at ``head``, so that
        it may be swept; see ``claims``. Raises Problem 503 or 507."""

    def put(self, originals: Mapping[str, bytes]) -> None:
        """All durable on return, also where a damaged one was there. Raises Problem 503, or 507
        where the disk is full."""

    def has(self, sha256: str, size: int) -> bool:
        """Whether there is nothing to put: so many bytes are there. Raises Problem 503."""

    def get(self, sha256: str) -> bytes | None:
        """The bytes, None where they are not kept. Raises Problem 503."""

    def parts(self, sha256: str) -> Parts | None:
        """The bytes, to be read one after another; None where they are not kept. Raises
        Problem 503."""

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Set aside what is not in use and older than the grace period, and remove what has been
        set aside for so long; returns how many are gone for good."""


def open_originals(location: str) -> Originals:
    """``none``, a folder, a file:// URL, or the URL of any installed fsspec driver.

    Raises ValueError for a driver that is not there, and a file on another machine.
    """
    if location == "none":
        return NoOriginals()
    url = urlsplit(location)
    if not url.scheme:
        return LocalOriginals(Path(location))
    if url.scheme == "file":
        if url.netloc not in ("", "localhost"):
            raise ValueError(f"GPQ_IMAGE_STORE={location}: file:// is of this machine alone")
        return LocalOriginals(Path(unquote(url.path)))
    try:
        return RemoteOriginals(location)
    except (ValueError, ImportError) as error:
        raise ValueError(f"GPQ_IMAGE_STORE={location}: {error}") from error


class NoOriginals:
    """Keeps nothing: searches by id use the stored code."""

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
