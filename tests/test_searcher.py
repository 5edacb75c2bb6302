import asyncio
import io
from typing import Any

import numpy as np

from gpq.model import Model
from service.encoder import Picture
from service.gate import Gate
from service.searcher import Asked, Searcher


class Encoder:
    """Tells what is begun and ended; looks while others could go on."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def accept(self, uploads: Any, models: Any) -> list[Picture]:
        self.told.append("pixels")
        return [Picture(1, 1, {}) for _ in uploads]

    async def luts(self, pictures: Any, model: Any) -> list[np.ndarray]:
        await asyncio.sleep(0.05)
        self.told.append("tables")
        return [np.zeros((1, 16), np.float32)] * len(pictures)


class Scans:
    async def ask_all(self, key: Any, items: Any) -> list[list[Any]]:
        return [[] for _ in items]


def test_only_searches_that_have_a_turn_hold_the_pixels_of_many_pictures() -> None:
    nothing: Any = None
    encoder: Any = Encoder()

    async def main() -> None:
        searcher = Searcher(nothing, nothing, nothing, encoder, Gate(limit=9, threads=1))
        searcher._scans = Scans()  # type: ignore[assignment]
        model: Model = nothing
        files = [io.BytesIO(b"a"), io.BytesIO(b"b")]
        asked = Asked("m", 1, -1.0)
        await asyncio.gather(*(searcher._near_many(files, asked, model) for _ in range(3)))

    asyncio.run(main())
    assert encoder.told == ["pixels", "tables"] * 3
