"""Good clients of a soak: they store, find and delete images, and check what they get."""

import io
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

from harness.images import encoded

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
KEPT = 100  # images of one client
PAUSE_SECONDS = 0.5  # of one client between two requests
TIMEOUT_SECONDS = 90
SIDE = 320  # of an image, in pixels
BUSY = (429, 503)


@dataclass
class Seen:
    """What good clients saw.

    ``statuses``: number of replies by request and status. ``search_seconds``: of the searches that
    were answered with 200. ``busy_after_seconds``: of those that were answered with 429 or 503.
    ``wrong``: replies that were not right, in words.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    search_seconds: list[float] = field(default_factory=list)
    busy_after_seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Seen") -> "Seen":
        self.statuses += other.statuses
        self.search_seconds += other.search_seconds
        self.busy_after_seconds += other.busy_after_seconds
        self.wrong += other.wrong
        return self


class GoodClient:
    """Sends requests in a thread, one at a time.

    ``stored``: the images that the service must have, by id. ``uncertain``: ids of images whose
    last write had no clear reply.
    """

    def __init__(self, url: str, name: str) -> None:
        self.stored: dict[str, bytes] = {}
        self.uncertain: set[str] = set()
        self._name, self._random, self._count = name, random.Random(name), 0
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)
        self._seen, self._exchange = Seen(), threading.Lock()
        self._done = threading.Event()
        self._photographs = sorted(EXAMPLES.glob("*/*.jpg"))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "GoodClient":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._http.close()

    def take_seen(self) -> Seen:
        """Returns what the client saw since the last call."""
        with self._exchange:
            seen, self._seen = self._seen, Seen()
        return seen

    def _run(self) -> None:
        while not self._done.wait(PAUSE_SECONDS * 2 * self._random.random()):
            choice = self._random.random()
            if choice < 0.2 or not self.stored:
                self._store()
            elif choice < 0.3:
                self._look()
            elif choice < 0.4:
                self._request("list", "GET", "/images", params={"limit": 20})
            else:
                self._search()

    def _store(self) -> None:
        """Stores an image, and deletes the oldest one of too many."""
        self._count += 1
        id, data = f"{self._name}-{self._count}", self._image()
        reply = self._request(
            "store", "POST", "/index", files=[("images", ("x", data))],
            data={"ids": json.dumps([id])},
        )  # fmt: skip
        if reply is None:
            self.uncertain.add(id)
        elif reply.status_code == 200:
            self.stored[id] = data
        if len(self.stored) > KEPT:
            oldest = next(iter(self.stored))
            reply = self._request("delete", "DELETE", f"/images/{oldest}")
            if reply is None:
                self.uncertain.add(oldest)
            if reply is None or reply.status_code == 204:
                del self.stored[oldest]

    def _look(self) -> None:
        id = self._random.choice(list(self.stored))
        reply = self._request("original", "GET", f"/images/{id}/content")
        if reply is not None and reply.status_code == 200 and reply.content != self.stored[id]:
            self._wrong(f"the original of {id} differs")

    def _search(self) -> None:
        id, data = self._random.choice(list(self.stored.items()))
        began = time.monotonic()
        reply = self._request("search", "POST", "/search", files={"image": data}, data={"k": 20})
        seconds = time.monotonic() - began
        if reply is None:
            return
        with self._exchange:
            if reply.status_code == 200:
                self._seen.search_seconds.append(seconds)
            elif reply.status_code in BUSY:
                self._seen.busy_after_seconds.append(seconds)
        if reply.status_code == 200:
            results = reply.json()["results"]
            equal = [each for each in results if each["score"] == results[0]["score"]]
            # Images with equal codes have equal scores, and more of them than asked for may exist.
            if id not in [each["id"] for each in equal] and len(equal) < len(results):
                self._wrong(f"{id} is not among the first results of its own search")

    def _request(
        self, name: str, method: str, path: str, **options: object
    ) -> httpx.Response | None:
        """Sends a request; None if there is no reply."""
        reply: httpx.Response | None
        try:
            reply = self._http.request(method, path, **options)  # type: ignore[arg-type]
            status = str(reply.status_code)
        except httpx.HTTPError as error:
            reply, status = None, type(error).__name__
        with self._exchange:
            self._seen.statuses[f"{name} {status}"] += 1
        if reply is not None and reply.status_code in BUSY and "Retry-After" not in reply.headers:
            self._wrong(f"{status} without Retry-After at {method} {path}")
        return reply

    def _wrong(self, what: str) -> None:
        with self._exchange:
            self._seen.wrong.append(what)

    def _image(self) -> bytes:
        """Returns a JPEG: a part of a photograph."""
        whole = Image.open(io.BytesIO(self._random.choice(self._photographs).read_bytes()))
        share = 0.5 + 0.5 * self._random.random()
        width, height = int(whole.width * share), int(whole.height * share)
        left = self._random.randrange(whole.width - width + 1)
        top = self._random.randrange(whole.height - height + 1)
        part = whole.convert("RGB").crop((left, top, left + width, top + height))
        return encoded(part.resize((SIDE, SIDE)), "JPEG", quality=90)
