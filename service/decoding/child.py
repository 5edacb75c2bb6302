"""Decodes files for the service: the program that ``process.DecodeProcess`` starts.

    python -m service.decoding.child SOCKET FILE SECONDS PIXELS BYTES

SOCKET and FILE are inherited descriptors. For each task, the files lie one behind the other in
FILE; the outputs take their place. SECONDS of processor time on one file end the process by
SIGPROF. BYTES is the memory that decoding may take. The program ends when the socket is closed.
"""

import gc
import io
import math
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import AvifImagePlugin, ImageCms

from gpq.errors import DecodeLimit, ImageError
from gpq.pixels import decode, formats, perceptual
from gpq.pixels.preprocess import Preprocess
from gpq.system import memory
from service.decoding.task import (
    KEPT_BYTES,
    UNEXPECTED,
    ImageFile,
    Input,
    Line,
    Region,
    Task,
    error_to_json,
)

LARGE_PIXELS = 4_000_000  # larger images are announced, and their memory is returned at once
FIRST_TO_KILL = "1000"  # when memory is short, the kernel ends this process before the service


@dataclass(frozen=True)
class _Made:
    """An output as in ``task``, whose parts need not be copied."""

    width: int
    height: int
    parts: list[memoryview]


class _NoRoom(Exception):
    """A large image has to wait."""


class Child:
    """Answers tasks, one after the other."""

    def __init__(self, line: Line, file: ImageFile, seconds: float, max_pixels: int) -> None:
        self.line, self.file, self.seconds, self.max_pixels = line, file, seconds, max_pixels

    def serve(self) -> None:
        """Returns when the socket is closed."""
        with suppress(EOFError, OSError):
            while True:
                request = self.line.receive()
                began = time.process_time()
                replies = self._answer(Task.from_json(request), request["lengths"])
                self.line.send({"files": replies, "seconds": time.process_time() - began})

    def _answer(self, task: Task, lengths: list[int]) -> list[dict[str, Any]]:
        """Reads files, and writes the outputs in their place. Returns the reply to each."""
        replies, outputs = [], []
        for data in self.file.read(lengths):
            made = self._outcome(data, task)
            if isinstance(made, _Made):
                outputs += made.parts
                size = {"width": made.width, "height": made.height}
                replies.append({**size, "bytes": sum(part.nbytes for part in made.parts)})
            else:
                replies.append(made)
                memory.give_back()
        self.file.write(outputs)
        if sum(lengths) > KEPT_BYTES:
            memory.give_back()
        return replies

    def _outcome(self, data: bytes, task: Task) -> _Made | dict[str, Any]:
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        try:
            return self._output(data, task)
        except _NoRoom:
            return {"later": True}
        except ImageError as error:
            return error_to_json(error)
        except MemoryError:
            return error_to_json(DecodeLimit("decoding the image takes more memory than allowed"))
        except Exception:
            return {"error": UNEXPECTED, "message": traceback.format_exc()}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _output(self, data: bytes, task: Task) -> _Made:
        made = self._thumbnail(data, task.thumbnail) if task.thumbnail else self._inputs(data, task)
        if made.width * made.height > LARGE_PIXELS:
            memory.give_back()
        return made

    def _thumbnail(self, data: bytes, side: int) -> _Made:
        full, buffer = self._decode(data, side), io.BytesIO()
        full.image.thumbnail((side, side))
        full.image.save(buffer, "WEBP")
        return _Made(full.width, full.height, [buffer.getbuffer()])

    def _inputs(self, data: bytes, task: Task) -> _Made:
        made: dict[Input, memoryview] = {}
        width = height = 0
        for scale in {shrink_to for _, shrink_to in task.inputs}:
            full = self._decode(data, _scale(scale, task.region))
            width, height = full.width, full.height
            shown = full.image
            if task.region:
                shown = shown.crop(task.region.box(*shown.size))
            for each in task.inputs:
                if each[1] == scale:
                    made[each] = Preprocess(each[0]).prepare(shown).data.cast("B")
            del full, shown  # before the next one is decoded
        parts = [made[each] for each in task.inputs]
        if task.copy_hash:
            # A decode of its own, so that the hash does not depend on the model.
            full = self._decode(data, perceptual.SIDE)
            width, height = full.width, full.height
            hash, quality = perceptual.pdq(full.image)
            parts.append(memoryview(hash + bytes([quality])))
        return _Made(width, height, parts)

    def _decode(self, data: bytes, shrink_to: int | None) -> decode.Decoded:
        return decode.decode(data, self.max_pixels, shrink_to, self._announce)

    def _announce(self, pixels: int) -> None:
        """Asks the service for room for a large image. Raises _NoRoom."""
        if pixels > LARGE_PIXELS:
            self.line.send({"pixels": pixels})
            if not self.line.receive()["go"]:
                raise _NoRoom


def _scale(shrink_to: int | None, region: Region | None) -> int | None:
    """Returns the ``shrink_to`` of a whole image that leaves the region as many pixels."""
    if shrink_to is None or region is None:
        return shrink_to
    return math.ceil(shrink_to / min(region.width, region.height))


def main(arguments: list[str]) -> None:
    line = Line(socket.socket(fileno=int(arguments[0])))
    file = ImageFile(int(arguments[1]))
    seconds, max_pixels, most_bytes = float(arguments[2]), int(arguments[3]), int(arguments[4])
    decode.limit_decoding(max_pixels)
    formats.formats()  # imports every decoder
    ImageCms.createProfile("sRGB")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    memory.keep_tensors()
    gc.freeze()
    _limit_memory(most_bytes)
    _be_quiet()
    Child(line, file, seconds, max_pixels).serve()


def _limit_memory(most_bytes: int) -> None:
    """Limits what is allocated from now on, where the system can: on Linux."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_KILL)


def _be_quiet() -> None:
    """Keeps the messages of C libraries about damaged files out of the service's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
