"""A network as one call without Python between its layers, so that other threads run meanwhile."""

import logging
import threading
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from gpq import winograd
from gpq.model.artifact import GOLDEN_MARGIN
from gpq.model.model import Model
from gpq.system import memory

SAMPLE = 32  # pictures of noise that must come out the same
TOLERANCE = 1e-4  # of a feature, in units of the largest
_TRACING = threading.Lock()  # torch keeps what it traces in one place
log = logging.getLogger("gpq")


@torch.inference_mode()
def in_one_call(model: Model) -> Model:
    """The model with its network by our own convolutions, or where that cannot be, traced and
    frozen by torch; as it is where both change a sample, or on CUDA."""
    if model.device.type != "cpu":
        return model
    faster = _by_winograd(model) or _traced(model)
    if faster is None:
        log.warning("the network runs layer by layer")
        return model
    return faster


def _by_winograd(model: Model) -> Model | None:
    if missing := winograd.missing():
        log.debug("torch computes the network: %s", missing)
        return None
    try:
        plan = winograd.plan(model.network.eval(), model.rules.size)
    except winograd.Unsupported as error:
        log.debug("torch computes the network: no steps for %s", error)
        return None
    faster = _if_it_agrees(model, winograd.WinogradNetwork(plan))
    memory.give_back()  # of the transformation, several times the weights
    return faster


def _traced(model: Model) -> Model | None:
    """Batch normalisation is folded into the convolutions."""
    side = model.rules.size
    images = torch.zeros(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    try:
        with _TRACING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another way that needs a compiler at run time
            traced = torch.jit.trace(model.network.eval(), images, check_trace=False)  # type: ignore[no-untyped-call]
            return _if_it_agrees(model, torch.jit.freeze(traced))
    except RuntimeError as error:
        log.warning("the network cannot be traced: %s", error)
        return None


def _if_it_agrees(model: Model, network: nn.Module) -> Model | None:
    other, side = replace(model, network=network), model.rules.size
    sample = np.random.default_rng(0).integers(0, 256, (SAMPLE, 3, side, side), dtype=np.uint8)
    features, found = model.features(sample), other.features(sample)
    most = TOLERANCE * features.abs().max()
    near = (features - found).abs().max() <= most
    near &= (features[:1] - other.features(sample[:1])).abs().max() <= most
    sure = model.codebook.margin(features) >= GOLDEN_MARGIN
    same = (model.codebook.encode(features) == model.codebook.encode(found)).all(dim=1)
    if near and same[sure].all():
        return other
    log.warning("the network is not run by %s: it changes what comes of it", type(network).__name__)
    return None
