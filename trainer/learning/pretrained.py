"""Weights that others have learnt on ImageNet, where they can be had."""

from pathlib import Path

import torch
from torch import nn

from gpq.model.network import TORCHVISION, TorchvisionNet
from trainer.errors import TrainerError

# torchvision's, as its transforms have them, on the 0-255 scale.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def require_pretrained(name: str) -> None:
    """Raises TrainerError where there are no weights of the network ``name``."""
    if name not in TORCHVISION:
        raise TrainerError(
            f"--pretrained: there are weights of {', '.join(TORCHVISION)} only, not of {name}"
        )


def load_pretrained(net: nn.Module, name: str) -> None:
    """Put torchvision's ImageNet weights into all of ``net`` but its last layer.

    They are taken from torch's cache or downloaded into it. Raises TrainerError where they
    cannot be reached, saying where to put the file.
    """
    assert isinstance(net, TorchvisionNet)
    from torchvision.models import get_model_weights  # slow to import, and only needed here

    weights = get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=True)
    except OSError as error:  # URLError is one
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise TrainerError(
            f"--pretrained: {weights.url} cannot be reached ({error}); fetch it elsewhere and put "
            f"it into {folder}, or train without"
        ) from error
    body = {key: tensor for key, tensor in state.items() if key in net.body.state_dict()}
    net.body.load_state_dict(body)
