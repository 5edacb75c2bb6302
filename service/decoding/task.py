"""What a decoding process is asked to do, what it replies, and how both are passed on.

Tasks and replies are JSON; files and pixels lie in a file in memory.

The replies are not pickled: a decoder that a hostile image has taken over could make the service
run any program by a pickle.
"""

import json
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from socket import SO_RCVTIMEO, SOL_SOCKET
from typing import Any, NamedTuple

from gpq.errors import BrokenImage, DecodeLimit, EmptyFile, ImageError, TooManyPixels, UnknownFormat

ERRORS: dict[str, type[ImageError]] = {
    kind.__name__: kind
    for kind in (BrokenImage, DecodeLimit, EmptyFile, TooManyPixels, UnknownFormat)
}
Input = tuple[int, int | None]  # size and shrink_to of a network's input, as in Preprocess
log = logging.getLogger("gpq.service")
MESSAGE_BYTES, MOST_BYTES = 65_536, 2**20  # of a part that is received, and of a message
KEPT_BYTES = 4 * 2**20  # of files whose memory is kept from one task to the next
UNEXPECTED = ""  # in place of the name of an error


class Region(NamedTuple):
    """A part of an upright image, in fractions of its width and height, from its upper left."""

    x: float
    y: float
    width: float
    height: float

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns the corners in pixels, of one pixel at least."""
        left = min(int(self.x * width), width - 1)
        top = min(int(self.y * height), height - 1)
        right = max(left + 1, min(width, round((self.x + self.width) * width)))
        bottom = max(top + 1, min(height, round((self.y + self.height) * height)))
        return left, top, right, bottom


@dataclass(frozen=True)
class Task:
    """How to decode a group of files.

    ``inputs``: the network inputs to prepare. ``region``: the part of the images that they show.
    ``thumbnail``: longer side of a WebP to make instead, in pixels; 0 for none. ``copy_hash``:
    whether to compute the perceptual hash too, of the whole image.
    """

    inputs: tuple[Input, ...] = ()
    thumbnail: int = 0
    region: Region | None = None
    copy_hash: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "thumbnail": self.thumbnail,
            "region": self.region,
            "copy_hash": self.copy_hash,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Task":
        inputs = tuple((size, shrink_to) for size, shrink_to in values["inputs"])
        region = values["region"] and Region(*values["region"])
        return cls(inputs, values["thumbnail"], region, values["copy_hash"])


class Later:
    """The type of ``LATER``."""


LATER = Later()  # a large image that has to wait until there is room


@dataclass(frozen=True)
class Output:
    """What a process made of one file.

    ``width``, ``height``: of the upright image. ``data``: the inputs (3,S,S) uint8, one after the
    other, then the perceptual hash and a byte with its quality; or a WebP.
    """

    width: int
    height: int
    data: bytes


def error_to_json(error: ImageError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}


def error_from_json(values: dict[str, Any]) -> ImageError:
    """Returns the error; logs one that no image should cause, which costs the image too."""
    if values["error"] == UNEXPECTED:
        log.error("unexpected error in a decoding process:\n%s", values["message"])
        return BrokenImage("the file cannot be decoded; the service's log has the details")
    return ERRORS[values["error"]](values["message"])


class Line:
    """Sends and receives JSON objects over a socket, one a line. Closing it ends the other side.

    ``look_seconds``: after which ``receive`` raises TimeoutError; 0 for never.
    """

    def __init__(self, socket: socket.socket, look_seconds: float = 0) -> None:
        self._socket, self._received = socket, b""
        # The system's own limit, because that of Python's takes a further call each time.
        limit = struct.pack("ll", *divmod(int(look_seconds * 1e6), 10**6))
        socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, limit)

    def send(self, values: dict[str, Any]) -> None:
        """Raises OSError."""
        self._socket.sendall(json.dumps(values).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """Raises TimeoutError, and can then be called again; EOFError at the end, or OSError."""
        while b"\n" not in self._received:
            try:
                part = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError as error:
                raise TimeoutError from error
            if not part:
                raise EOFError
            self._received += part
            if len(self._received) > MOST_BYTES:
                raise EOFError
        text, _, self._received = self._received.partition(b"\n")
        values: dict[str, Any] = json.loads(text)
        return values

    def close(self) -> None:
        self._socket.close()


class ImageFile:
    """A file without a name, in memory where the system can do that, which two processes share."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> "ImageFile":
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("images"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, parts: Iterable[bytes | memoryview]) -> None:
        """Writes the parts one behind the other, from the beginning."""
        place = 0
        for part in parts:
            left = memoryview(part)
            while left:
                written = os.pwrite(self.descriptor, left, place)
                place, left = place + written, left[written:]

    def read(self, lengths: Sequence[int]) -> list[bytes]:
        """Reads parts, and returns the memory of a large file to the system."""
        place, parts = 0, []
        for length in lengths:
            parts.append(self._read(length, place))
            place += length
        if place > KEPT_BYTES:
            os.ftruncate(self.descriptor, 0)
        return parts

    def close(self) -> None:
        os.close(self.descriptor)

    def _read(self, length: int, place: int) -> bytes:
        data = os.pread(self.descriptor, length, place)
        while len(data) < length:  # a call reads 2 GiB at most
            more = os.pread(self.descriptor, length - len(data), place + len(data))
            if not more:
                raise EOFError
            data += more
        return data
