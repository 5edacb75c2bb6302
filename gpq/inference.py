"""A network as one call without Python between its layers, so that other threads run meanwhile."""

import logging
import warnings
from dataclasses import replace

import numpy as np
import torch

from gpq.model import Model

SAMPLE = 32  # pictures of noise that must come out the same
TOLERANCE = 1e-4  # of a feature, in units of the largest
log = logging.getLogger("gpq")


@torch.inference_mode()
def in_one_call(model: Model) -> Model:
    """The model with its network traced and frozen, batch normalisation folded into the
    convolutions; as it is where that changes a code of a sample, cannot be done, or is of no use
    (on CUDA)."""
    if model.device.type != "cpu":
        return model
    side = model.rules.size
    sample = np.random.default_rng(0).integers(0, 256, (SAMPLE, 3, side, side), dtype=np.uint8)
    images = model.rules.normalise(torch.as_tensor(sample[:2]))
    images = images.contiguous(memory_format=torch.channels_last)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another way that needs a compiler at run time
            network = model.network.eval()
            traced = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = replace(model, network=torch.jit.freeze(traced))
            same = _agree(model, frozen, sample)
    except RuntimeError as error:
        log.warning("the network runs layer by layer: it cannot be traced: %s", error)
        return model
    if not same:
        log.warning("the network runs layer by layer: traced, it computes something else")
        return model
    return frozen


def _agree(model: Model, other: Model, sample: np.ndarray) -> bool:
    features, found = model.features(sample), other.features(sample)
    near = (features - found).abs().max() <= TOLERANCE * features.abs().max()
    alone = other.features(sample[:1])
    near &= (features[:1] - alone).abs().max() <= TOLERANCE * features.abs().max()
    return bool(near) and bool((model.encode(sample) == other.encode(sample)).all())
