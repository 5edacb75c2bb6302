"""Divides networks into a frozen part, whose output is a row of features, and the rest."""

import copy

import torch
from torch import Tensor, nn

from gpq.engine.torch_architectures import EFFICIENTNETS, TorchvisionNet
from gpq.engine.torch_efficientnet import STAGES, EfficientNetLite
from trainer.components.head import Head

RESNETS = ("resnet18", "resnet50")
RESNET_STAGES = 4


class Map(nn.Unflatten):
    """Turns rows (B,C·H·W) into maps (B,C,H,W) whose channels come last in memory."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows).contiguous(memory_format=torch.channels_last)


def stages_of(name: str) -> int:
    """Returns the number of stages that a network can be divided after; 0 if there are none."""
    if name in EFFICIENTNETS:
        return len(STAGES)
    return RESNET_STAGES if name in RESNETS else 0


def first_part(network: nn.Module, stages: int | None) -> nn.Module:
    """Returns a copy of a network's first stages, with its last map as a row (B,E).

    ``stages``: None for all layers up to the pooled features (B,E) that ``project`` takes.
    """
    part = copy.deepcopy(network).eval().requires_grad_(False)
    part.project = nn.Identity()
    if stages is None:
        return part
    if isinstance(part, EfficientNetLite):
        for number in range(stages, len(part.stages)):
            _replace(part.stages, str(number), nn.Identity())
        _replace(part, "head", nn.Identity())
        _replace(part, "pool", nn.Flatten(1))
        return part
    assert isinstance(part, TorchvisionNet)
    for number in range(stages + 1, RESNET_STAGES + 1):
        _replace(part.body, f"layer{number}", nn.Identity())
    _replace(part.body, "avgpool", nn.Identity())  # torchvision flattens its output
    return part


def rest(network: nn.Module, stages: int | None, size: int) -> nn.Module:
    """Returns a copy of what ``first_part`` leaves out: rows (B,E) -> (B,D).

    Its tensors have the names that they have in the network. ``size``: pixels a side of images.
    """
    if stages is None:
        last = network.get_submodule("project")
        assert isinstance(last, nn.Linear)
        head = Head(last.in_features, last.out_features)
        head.project = copy.deepcopy(last)
        return head
    begin = Map(1, _map_shape(network, stages, size))
    left = copy.deepcopy(network)
    if isinstance(left, EfficientNetLite):
        _replace(left, "stem", begin)
        for number in range(stages):
            _replace(left.stages, str(number), nn.Identity())
        return left
    assert isinstance(left, TorchvisionNet)
    _replace(left.body, "conv1", begin)
    for name in ("bn1", "relu", "maxpool", *(f"layer{n}" for n in range(1, stages + 1))):
        _replace(left.body, name, nn.Identity())
    return left


def joined(network: nn.Module, last: nn.Module, learnt: dict[str, Tensor]) -> nn.Module:
    """Returns a copy of a network with the last layer and the tensors of its learnt rest."""
    whole = copy.deepcopy(network)
    whole.project = copy.deepcopy(last).cpu()
    state = whole.state_dict()
    assert set(learnt) <= set(state)
    whole.load_state_dict({**state, **learnt})
    return whole


def _replace(parent: nn.Module, name: str, child: nn.Module) -> None:
    assert name in parent._modules
    setattr(parent, name, child)


def _map_shape(network: nn.Module, stages: int, size: int) -> tuple[int, ...]:
    """Returns (C,H,W) of the output of the last frozen stage."""
    name = (
        f"stages.{stages - 1}" if isinstance(network, EfficientNetLite) else f"body.layer{stages}"
    )
    found: list[tuple[int, ...]] = []
    with torch.device("meta"):  # computes only shapes
        part = first_part(network, stages).to("meta")
        last = part.get_submodule(name)
        last.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
        part(torch.zeros(1, 3, size, size))
    return found[0]
