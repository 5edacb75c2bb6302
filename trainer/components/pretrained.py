"""Loads weights that torchvision publishes for ImageNet."""

from pathlib import Path

import torch
from torch import nn

from gpq.engine.torch_architectures import TORCHVISION, TorchvisionNet
from trainer.errors import TrainerError

# The values of torchvision's transforms, on the scale 0-255.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def require_pretrained(name: str) -> None:
    """Raises TrainerError if there are no published weights for the network ``name``."""
    if name not in TORCHVISION:
        raise TrainerError(
            f"--pretrained: there are weights for {', '.join(TORCHVISION)} only, not for {name}"
        )


def load_pretrained(net: nn.Module, name: str) -> None:
    """Loads torchvision's ImageNet weights into all layers of ``net`` except the last.

    The weights are in torch's cache or are downloaded into it. Raises TrainerError if they cannot
    be downloaded; the message says where to put the file.
    """
    assert isinstance(net, TorchvisionNet)
    from torchvision.models import get_model_weights  # slow to import, and only needed here

    weights = get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=True)
    except OSError as error:  # URLError is one
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise TrainerError(
            f"--pretrained: {weights.url} cannot be reached ({error}): download it elsewhere and "
            f"put it into {folder}, or train without --pretrained"
        ) from error
    body = {key: tensor for key, tensor in state.items() if key in net.body.state_dict()}
    net.body.load_state_dict(body)
