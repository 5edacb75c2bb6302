import asyncio
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpq.model import artifact
from harness.images import png
from service.concurrency import deadlines
from service.models.encoder import Encoder, Picture
from service.problems import Problem


@pytest.mark.parametrize(
    ("together", "side", "batches"),
    [(0, 32, [8] * 12 + [4]), (64, 32, [64, 36]), (64, 160, [15] * 6 + [10]), (64, 400, [8] * 12)],
)
def test_jobs_encode_more_at_once_as_far_as_pixels_go(
    random_model: Path, together: int, side: int, batches: list[int]
) -> None:
    loaded = artifact.load(random_model)
    model = replace(loaded, rules=replace(loaded.rules, size=side))
    seen: list[int] = []
    count = sum(batches)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    with closing(Encoder(10_000, 1, 1, seen.append, together=together)) as encoder:
        found = encoder.encode([Picture(32, 32, {model.id: each}) for each in pixels], model)
    assert seen == batches
    assert found == [row.tobytes() for row in loaded.encode(pixels)]


def test_many_small_pictures_come_out_in_order_whatever_is_wrong_with_some(
    random_model: Path,
) -> None:
    model = artifact.load(random_model)
    uploads = [png(n) for n in range(30)]
    uploads[::7] = [b"no picture"] * 5
    uploads[3] = png(3) + b"x" * 20_000
    with closing(Encoder(10_000, 3, 1)) as encoder:
        found = encoder.accept(iter(uploads), [model])
    for data, picture in zip(uploads, found, strict=True):
        if data == b"no picture":
            assert isinstance(picture, Problem) and picture.status == 415
        else:
            assert isinstance(picture, Picture)
            assert np.array_equal(picture.pixels[model.id], model.read(data))


@pytest.mark.parametrize("ask", ["encode", "luts"])
def test_what_has_begun_is_encoded_to_its_end(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    def compute(self: object, of: object, model: object, pixels: np.ndarray) -> np.ndarray:
        waits.left = 0  # the first part's wait has used it up
        return np.zeros((len(pixels), 6), np.uint8)

    monkeypatch.setattr("gpq.engine.fallback.Fallback.run", compute)
    model = artifact.load(random_model)
    pictures = [Picture(32, 32, {model.id: np.zeros((3, 32, 32), np.uint8)})] * 32
    with closing(Encoder(10_000, 1, 1)) as encoder, deadlines.of(60):
        waits = deadlines.current()
        if ask == "encode":
            found = encoder.encode(pictures, model)
        else:
            found = asyncio.run(encoder.luts(pictures, model))
    assert len(found) == 32


def test_what_waits_too_long_to_be_decoded_is_given_up_and_what_has_begun_is_not(
    random_model: Path,
) -> None:
    model = artifact.load(random_model)
    begun, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        begun.set()
        assert go.wait(10)
        return png(1)

    with closing(Encoder(10_000, 1, 1)) as encoder:
        first = encoder.decode(slow, model)
        assert begun.wait(10)
        for ask in (lambda: encoder.accept([png(2)], [model]), lambda: encoder.thumbnail(png(2))):
            with deadlines.of(0.05), pytest.raises(Problem) as caught:
                ask()
            assert caught.value.status == 503
        with deadlines.of(0.05):
            threading.Timer(0.3, go.set).start()
            assert deadlines.current().result_of(first).width == 40
