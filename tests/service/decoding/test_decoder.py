import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anyio
import numpy as np
import pytest

from gpq.engine import engines
from gpq.errors import UnknownFormat
from harness.images import png
from service.concurrency import wait_budget
from service.decoding.decoder import DecodedImage, open_decoder
from service.errors import WaitedTooLong
from service.settings import Settings


def test_many_small_images_are_decoded_in_order_even_if_some_are_broken(
    random_model: Path,
) -> None:
    model = engines.load(random_model)
    uploads = [png(n) for n in range(30)]
    uploads[::7] = [b"no image"] * 5
    uploads[3] = png(3) + b"x" * 20_000
    with closing(open_decoder(Settings(max_pixels=10_000, decode_threads=3))) as decoder:
        found = decoder.decode_all(iter(uploads), [model])
    for data, image in zip(uploads, found, strict=True):
        if data == b"no image":
            assert isinstance(image, UnknownFormat)
        else:
            assert isinstance(image, DecodedImage)
            assert np.array_equal(image.pixels[model.id], model.read(data))


def test_decoding_that_waits_too_long_is_cancelled_unless_it_has_begun(
    random_model: Path,
) -> None:
    model = engines.load(random_model)
    begun, go = threading.Event(), threading.Event()

    def slow() -> bytes:
        begun.set()
        assert go.wait(10)
        return png(1)

    def done(image: DecodedImage) -> Future[DecodedImage]:
        future: Future[DecodedImage] = Future()
        future.set_result(image)
        return future

    async def decode_slowly() -> DecodedImage:
        with wait_budget.limited(0.2):
            found: DecodedImage = await decoder.decode(slow, 1000, model, done)
            return found

    with (
        closing(open_decoder(Settings(max_pixels=10_000, decode_threads=1))) as decoder,
        ThreadPoolExecutor(1) as thread,
    ):
        first = thread.submit(anyio.run, decode_slowly)
        assert begun.wait(10)
        for decode in (
            lambda: decoder.decode_all([png(2)], [model]),
            lambda: decoder.thumbnail(png(2)),
        ):
            with wait_budget.limited(0.05), pytest.raises(WaitedTooLong):
                decode()
        threading.Timer(0.3, go.set).start()
        assert first.result().width == 40
