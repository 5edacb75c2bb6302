"""Reads the images of an object store, through fsspec."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import fsspec

from service.errors import SourceError
from service.sources.entries import Entry, entry, failing, length, too_large, until

NOT_SOURCES = ("http", "https", "file", "local")  # have listings of another kind, or are folders


class _Object(NamedTuple):
    """An object of a store. ``stamp``: as of an entry."""

    key: str
    size: int
    stamp: str


def is_url(source: str) -> bool:
    return "://" in source


class Remote:
    """All objects below a URL such as s3://bucket/folder, in the order of their names.

    Names of which a part begins with a dot are skipped.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        protocol, _, place = url.partition("://")
        if "@" in place.partition("/")[0]:
            raise SourceError("give user and password by the driver's variables, not in the URL")
        if protocol in NOT_SOURCES or not place.strip("/"):
            raise SourceError(f"{protocol}://… is not a source: name a bucket of an object store")
        self.max_bytes = max_bytes
        with _translated(protocol):
            self.files, root = fsspec.url_to_fs(url, use_listings_cache=False)
            self.root = root.rstrip("/")
        self._protocol = protocol

    def count(self, stop: Event) -> int:
        return length(until(stop, self._objects()))

    def entries(self, stop: Event) -> Iterator[Entry]:
        for each in until(stop, self._objects()):
            name, size = self._name(each), each.size
            if size > self.max_bytes:
                yield entry(name, {}, failing(too_large(size, self.max_bytes)))
                continue
            yield entry(name, {}, self._reader(each.key), size=partial(int, size), stamp=each.stamp)

    def _objects(self) -> Iterator[_Object]:
        with _translated(self._protocol):
            found = self.files.find(self.root, detail=True)
        if not found:
            raise SourceError("there are no objects of that name: name a bucket or a folder")
        # Stores keep folders as objects whose names end with a slash.
        names = sorted(key for key in found if not key.endswith("/"))
        objects = [
            _Object(key, int(found[key].get("size") or 0), _stamp(found[key])) for key in names
        ]
        del found
        for each in objects:
            parts = self._name(each).split("/")
            if parts != [""] and not any(part.startswith(".") for part in parts):
                yield each

    def _name(self, each: _Object) -> str:
        return each.key.removeprefix(self.root).removeprefix("/")

    def _reader(self, key: str) -> Callable[[], bytes]:
        def read() -> bytes:
            with _translated(self._protocol):
                # An object may have grown since it was listed.
                data = bytes(self.files.cat_file(key, start=0, end=self.max_bytes + 1))
            if len(data) > self.max_bytes:
                raise SourceError(too_large(len(data), self.max_bytes))
            return data

        return read


def _stamp(about: dict[str, Any]) -> str:
    """Returns what changes when the object does, or "" if the store does not tell."""
    tag = about.get("ETag") or about.get("etag") or about.get("md5Hash")
    return f"{about.get('size')} {tag}" if tag else ""


@contextmanager
def _translated(protocol: str) -> Iterator[None]:
    """Turns whatever a driver raises into a SourceError."""
    try:
        yield
    except SourceError:
        raise
    except ImportError as error:
        advice = "pip install 'gpq-search[s3]'" if protocol == "s3" else f"install {error.name}"
        raise SourceError(f"there is no driver for {protocol}://: {advice}") from error
    except FileNotFoundError as error:
        raise SourceError("there is no such bucket or object") from error
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise SourceError(f"the object store failed: {text[:200]}") from error
