"""Encodes decoded images: runs networks and computes codes and look-up tables, in batches."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpq.model.model import Model
from service.concurrency import wait_budget
from service.concurrency.batcher import Batcher
from service.decoding.decoder import DecodedImage
from service.telemetry import timing

# Images of searches in one batch. On the CPU, larger batches gain little and delay the first image.
BATCHES = {"cpu": 8, "cuda": 64}
# Pixels of a larger batch, at most: the memory of a ResNet-50 is kept from one batch to the next.
BATCH_PIXELS = 8 * 224 * 224

# What to compute, with the model of that id.
Output = tuple[Literal["codes", "features", "luts"], str]
NetworkInput = tuple[Model, NDArray[np.uint8]]


class Encoder:
    """Encodes images of concurrent requests together, as many as are worthwhile on the device.

    ``models``: the loaded models by id; a call in progress keeps using the model it began with.
    ``together``: largest batch of small images for callers that need no quick first result; 0 for
    the usual size. ``networks``: batches that run at the same time on the CPU. ``watch`` is called
    with the size of each batch.
    """

    def __init__(
        self,
        watch: Callable[[int], object] = lambda n: None,
        device: str = "cpu",
        together: int = 0,
        networks: int = 1,
    ) -> None:
        self.models: Mapping[str, Model] = {}
        self.networks = networks if device == "cpu" else 1
        self._watch = watch
        self._most = max(together, BATCHES[device])
        self._batches: Batcher[Output, NetworkInput, Any] = Batcher(
            "encode", self._compute, BATCHES[device], self.networks
        )

    def close(self) -> None:
        """Cancels waiting work. A batch in progress is finished, but ``close`` does not wait."""
        self._batches.close()

    def learn(self, model: Model) -> None:
        """Adds a model."""
        self.models = {**self.models, model.id: model}

    def forget(self, id: str) -> None:
        """Removes a model."""
        self.models = {known: model for known, model in self.models.items() if known != id}

    def encode(self, images: Sequence[DecodedImage], model: Model) -> list[bytes]:
        """Returns the packed code of each image, ceil(M/2) bytes."""
        most = min(self._most, max(self._batches.most, BATCH_PIXELS // model.rules.size**2))
        inputs = _inputs(images, model)
        codes: list[bytes] = []
        for first in range(0, len(inputs), most):
            if first:
                wait_budget.current().lift()
            future = self._batches.submit(("codes", model.id), inputs[first : first + most])
            encoded: Sequence[bytes] = wait_budget.current().result_of(future)
            codes += encoded
        return codes

    def lut(self, image: DecodedImage, model: Model) -> Future[Sequence[NDArray[np.float32]]]:
        """Computes the look-up table (M,K) of one query; it is the one item of the result."""
        return self._batches.submit(("luts", model.id), _inputs([image], model))

    async def luts(self, images: Sequence[DecodedImage], model: Model) -> list[NDArray[np.float32]]:
        """Returns the look-up table (M,K) of each query."""
        return await self._batches.results(("luts", model.id), _inputs(images, model))

    def features(self, image: DecodedImage, model: Model) -> Future[Sequence[NDArray[np.float32]]]:
        """Computes the features (D,) of one query; they are the one item of the result."""
        return self._batches.submit(("features", model.id), _inputs([image], model))

    def _compute(self, output: Output, inputs: Sequence[NetworkInput]) -> Sequence[Any]:
        self._watch(len(inputs))
        model = inputs[0][0]
        pixels = np.stack([of_one for _, of_one in inputs])
        with timing.stage("encode"):
            if output[0] == "codes":
                return [code.tobytes() for code in model.encode(pixels)]
            if output[0] == "features":
                return list(model.features(pixels))
            return list(model.lut(pixels))


def _inputs(images: Sequence[DecodedImage], model: Model) -> list[NetworkInput]:
    return [(model, image.pixels[model.id]) for image in images]
