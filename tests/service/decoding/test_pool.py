"""Tests that an image can cost its process, and nothing else."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpq.errors import BrokenImage, DecodeLimit, UnknownFormat
from gpq.pixels import decode
from gpq.pixels.preprocess import Preprocess
from harness import hostile
from harness.images import encoded, png
from service.concurrency.work import Work
from service.decoding.pool import DecodePool
from service.decoding.process import ProcessLimits
from service.decoding.task import Later, Output, Task
from service.errors import ClientGone, Unavailable

MEGAPIXELS = 10**6
TASK = Task(((32, None), (48, 96)))


@pytest.fixture
def pools() -> Iterator:
    made: list[DecodePool] = []

    def new(
        size: int = 1, seconds: float = 10, pixels: int = 50 * MEGAPIXELS, mebibytes: int = 500
    ) -> DecodePool:
        made.append(DecodePool(size, ProcessLimits(seconds, pixels, mebibytes * 2**20)))
        return made[-1]

    yield new
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def slow() -> bytes:
    """A small PNG that takes about half a second."""
    return hostile.black_png(7000)


def processes(pool: DecodePool) -> list[int]:
    return [place.start()._process.pid for place in pool._all[: pool.size]]


def test_pixels_are_those_of_the_library_to_the_bit(pools) -> None:
    photograph = encoded(Image.effect_noise((500, 400), 50).convert("RGB"), "JPEG")
    files = [png(1), photograph, b"no image", png(2)[:900]]
    found = pools().run(TASK, files, [Work()] * 4)
    for data, output in zip(files[:2], found, strict=False):
        images = [decode.load(data, shrink_to=shrink_to) for _, shrink_to in TASK.inputs]
        prepared = [
            Preprocess(size).prepare(image)
            for (size, _), image in zip(TASK.inputs, images, strict=True)
        ]
        assert isinstance(output, Output)
        assert output.data == b"".join(map(np.ndarray.tobytes, prepared))
        assert (output.width, output.height) == decode.load(data).size
    assert isinstance(found[2], UnknownFormat) and isinstance(found[3], BrokenImage)


def test_an_image_over_its_time_costs_its_process_alone(pools, slow: bytes) -> None:
    ended = []
    pool = pools(seconds=0.1)
    pool._killed = lambda: ended.append(1)
    before = processes(pool)
    found = pool.run(TASK, [png(1), slow, png(2)], [Work()] * 3)
    assert [type(each) for each in found] == [Output, DecodeLimit, Output]
    assert "0.1 seconds" in str(found[1])
    assert len(ended) == 2  # with the others, and alone
    assert processes(pool) != before


def test_an_image_over_its_memory_is_refused(pools, slow: bytes) -> None:
    (found,) = pools(mebibytes=60).run(TASK, [encoded_rgb()], [Work()])
    assert isinstance(found, DecodeLimit) and "memory" in str(found)


def encoded_rgb() -> bytes:
    return encoded(Image.new("RGB", (5000, 5000)))


def test_a_process_that_was_killed_is_replaced(pools) -> None:
    pool = pools()
    (process,) = processes(pool)
    os.kill(process, signal.SIGKILL)
    (found,) = pool.run(TASK, [png(1)], [Work()])
    assert isinstance(found, Output)
    assert processes(pool) != [process]


def test_an_image_that_crashes_its_process_twice_is_broken(pools, slow: bytes) -> None:
    pool = pools()
    found: list = []
    thread = threading.Thread(target=lambda: found.extend(pool.run(TASK, [slow], [Work()])))
    thread.start()
    killed: set[int] = set()
    while thread.is_alive():
        process = pool._all[0]._process
        if process is not None and process._process.pid not in killed:
            time.sleep(0.1)
            killed.add(process._process.pid)
            process.kill()
        time.sleep(0.01)
    assert isinstance(found[0], BrokenImage) and "signal 9" in str(found[0])
    assert len(killed) == 2


def test_abandoned_work_ends_at_once(pools, slow: bytes) -> None:
    pool, work = pools(), Work()
    threading.Timer(0.5, work.abandon).start()
    began = time.monotonic()
    with pytest.raises(ClientGone):
        pool.run(TASK, [slow] * 40, [work] * 40)
    assert time.monotonic() - began < 5
    with pytest.raises(ClientGone):
        pool.run(TASK, [png(1)], [work])
    assert isinstance(pool.run(TASK, [png(1)], [Work()])[0], Output)


def test_abandoned_work_ends_between_images(pools, slow: bytes, monkeypatch) -> None:
    monkeypatch.setattr("service.decoding.process.LOOK_SECONDS", 60)
    pool, work = pools(), Work()
    threading.Timer(0.5, work.abandon).start()
    with pytest.raises(ClientGone):
        pool.run(TASK, [slow] * 40, [work] * 40)


def test_abandoned_work_ends_although_a_process_ended(pools, slow: bytes) -> None:
    pool, work = pools(seconds=0.1), Work()
    threading.Timer(0.5, work.abandon).start()
    with pytest.raises(ClientGone):
        pool.run(TASK, [slow] * 40, [work] * 40)


def test_a_request_has_a_limit_for_all_its_images(pools, slow: bytes) -> None:
    pool, work = pools(), Work(decode_seconds=0.2)
    assert isinstance(pool.run(TASK, [slow], [work])[0], Output)
    assert work.decode_seconds < 0
    (found,) = pool.run(TASK, [png(1)], [work])
    assert isinstance(found, DecodeLimit) and "GPQ_REQUEST_SECONDS" in str(found)


def test_closing_ends_work_in_progress(pools, slow: bytes) -> None:
    pool = pools()
    running = processes(pool)
    threading.Timer(0.5, pool.close).start()
    with pytest.raises(Unavailable, match="stops"):
        pool.run(TASK, [slow] * 40, [Work()] * 40)
    with pytest.raises(ProcessLookupError):
        os.kill(running[0], 0)


def test_a_process_knows_no_secrets_of_the_service(pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPQ_API_KEYS", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    (process,) = processes(pools())
    time.sleep(0.2)
    found = Path(f"/proc/{process}/environ").read_text()
    assert "PATH=" in found and "secret" not in found


def test_a_large_image_without_room_is_left_for_later(pools) -> None:
    pool = pools(size=2, pixels=30 * MEGAPIXELS)
    large = encoded(Image.effect_noise((5000, 5000), 50), compress_level=1)
    task = Task(((32, None),))
    assert pool._budget.take_now(20 * MEGAPIXELS)
    found = pool.run(task, [png(1), large, png(2)], [Work()] * 3)
    assert [type(each) for each in found] == [Output, Later, Output]
    waiting = threading.Timer(0.5, pool._budget.give, [20 * MEGAPIXELS])
    waiting.start()
    began = time.monotonic()
    assert isinstance(pool.run_waiting(task, large, Work()), Output)
    assert time.monotonic() - began > 0.4
    assert pool._budget._taken == 0
    assert isinstance(pool.run(task, [large], [Work()])[0], Output)  # there is room


def test_waiting_for_room_ends_when_the_work_is_abandoned(pools) -> None:
    pool, work = pools(pixels=30 * MEGAPIXELS), Work()
    large = encoded(Image.new("L", (5000, 5000)))
    assert pool._budget.take_now(20 * MEGAPIXELS)
    threading.Timer(0.5, work.abandon).start()
    with pytest.raises(ClientGone):
        pool.run_waiting(TASK, large, work)
