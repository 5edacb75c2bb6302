"""Runs a network in a single call, without Python between its layers.

Other Python threads run during that call.
"""

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

SAMPLE = 32  # images of noise on which the faster network must agree
TOLERANCE = 1e-4  # allowed difference of a feature, relative to the largest feature
_TRACING = threading.Lock()  # torch keeps the state of a trace in global variables
log = logging.getLogger("gpq")


@torch.inference_mode()
def in_one_call(model: Model) -> Model:
    """Returns the model with a faster network, or the model itself if no faster network agrees.

    The network runs on the project's own convolutions or, if that is impossible, is traced and
    frozen by torch. A model on a CUDA device is returned unchanged.
    """
    if model.device.type != "cpu":
        return model
    faster = _by_winograd(model) or _traced(model)
    if faster is None:
        log.warning("the network runs layer by layer, which is slower")
        return model
    return faster


def _by_winograd(model: Model) -> Model | None:
    if missing := winograd.missing():
        log.debug("torch computes the network: %s", missing)
        return None
    try:
        plan = winograd.plan(model.network.eval(), model.rules.size)
    except winograd.Unsupported as error:
        log.debug("torch computes the network: unsupported by our convolutions: %s", error)
        return None
    faster = _checked(model, winograd.WinogradNetwork(plan))
    memory.give_back()  # transforming the weights took several times their memory
    return faster


def _traced(model: Model) -> Model | None:
    """Traces and freezes the network, which folds batch normalisation into its convolutions."""
    side = model.rules.size
    images = torch.zeros(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    try:
        with _TRACING, warnings.catch_warnings():
            # torch recommends replacements for tracing that need a compiler at run time.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(model.network.eval(), images, check_trace=False)  # type: ignore[no-untyped-call]
            return _checked(model, torch.jit.freeze(traced))
    except RuntimeError as error:
        log.warning("the network cannot be traced: %s", error)
        return None


def _checked(model: Model, network: nn.Module) -> Model | None:
    """Returns the model with another network if both compute the same from a sample of images."""
    other, side = replace(model, network=network), model.rules.size
    sample = np.random.default_rng(0).integers(0, 256, (SAMPLE, 3, side, side), dtype=np.uint8)
    features, found = model.features(sample), other.features(sample)
    most = TOLERANCE * features.abs().max()
    near = (features - found).abs().max() <= most
    near &= (features[:1] - other.features(sample[:1])).abs().max() <= most
    codebook = model.codebook
    sure = codebook.margin(features.numpy()) >= GOLDEN_MARGIN
    same = (codebook.encode(features.numpy()) == codebook.encode(found.numpy())).all(axis=1)
    if near and same[sure].all():
        return other
    log.warning("%s computes other features; it is not used", type(network).__name__)
    return None
