"""Networks F that extract features: (B,3,H,W) float32 -> (B,D) float32, not normalised."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpq.engine.torch_efficientnet import SCALES, EfficientNetLite


class ClassProject(nn.Linear):
    """A linear layer over features (B,E) and the probabilities of C classes, which it computes.

    The probabilities come first. They are the softmax of the linear layer ``classes``. An image of
    one class can thus get other sub-vectors than its features alone would give it.
    """

    def __init__(self, features: int, dimension: int, classes: int) -> None:
        super().__init__(classes + features, dimension)
        self.classes = nn.Linear(features, classes)

    def forward(self, features: Tensor) -> Tensor:
        likely = torch.softmax(self.classes(features), dim=1)
        return functional.linear(torch.cat([likely, features], dim=1), self.weight, self.bias)


def projection(features: int, dimension: int, classes: int = 0) -> nn.Linear:
    """Returns the last layer of a network: linear, or with the probabilities of ``classes``."""
    if classes:
        return ClassProject(features, dimension, classes)
    return nn.Linear(features, dimension)


def conv_bn_relu(channels_in: int, channels_out: int, *, pool: bool = False) -> nn.Sequential:
    """Returns a 3×3 convolution, an optional 2×2 max pool, a batch norm and a ReLU.

    The pool comes before the norm: the functions are of the same family, and the norm has a
    quarter of the memory traffic.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    layers += [nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """The paper's modified VGG for 32×32 images (section 4.1).

    It has stages of 2, 2, 3 and 3 convolutions at w, 2w, 4w and 8w channels. The global average
    pools of the last two stages are concatenated and projected to D.
    The paper's ``width`` is w = 64: 285 MMAC an image.
    """

    def __init__(self, dimension: int, width: int) -> None:
        super().__init__()
        w = width
        self.low = nn.Sequential(
            conv_bn_relu(3, w),
            conv_bn_relu(w, w, pool=True),
            conv_bn_relu(w, 2 * w),
            conv_bn_relu(2 * w, 2 * w, pool=True),
        )
        self.middle = nn.Sequential(
            conv_bn_relu(2 * w, 4 * w), conv_bn_relu(4 * w, 4 * w), conv_bn_relu(4 * w, 4 * w)
        )
        self.high = nn.Sequential(
            nn.MaxPool2d(2),
            conv_bn_relu(4 * w, 8 * w),
            conv_bn_relu(8 * w, 8 * w),
            conv_bn_relu(8 * w, 8 * w),
        )
        self.project = nn.Linear(12 * w, dimension)

    def forward(self, images: Tensor) -> Tensor:
        middle = self.middle(self.low(images))
        high = self.high(middle)
        pooled = torch.cat([middle.mean(dim=(2, 3)), high.mean(dim=(2, 3))], dim=1)
        projected: Tensor = self.project(pooled)
        return projected


class Residual(nn.Module):
    """Adds two convolutions of x to x; the shape stays the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(channels, channels), conv_bn_relu(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _stage(channels: int, *, early: bool) -> nn.Sequential:
    """Halves the side, doubles the channels and adds one residual block."""
    halving = conv_bn_relu(channels, 2 * channels, pool=True)
    if early:  # keeps the names of the layers, so that either kind can load the other's weights
        conv, pool, *rest = halving.named_children()
        halving = nn.Sequential(OrderedDict([pool, conv, *rest]))
    return nn.Sequential(halving, Residual(2 * channels))


class ResNet(nn.Module):
    """A small residual network for 32×32 images.

    After a stem at w channels, three stages at 2w, 4w and 8w channels halve the image and add one
    residual block each. A global max pool and one linear layer to D follow.
    ``width``: w = 32 gives 2.0 M parameters and 114 MMAC an image.
    ``early``: each stage halves the image before its first convolution instead of after it, which
    gives 72 MMAC.
    """

    def __init__(self, dimension: int, width: int, *, early: bool = False) -> None:
        super().__init__()
        w = width
        self.stem = conv_bn_relu(3, w)
        self.stages = nn.Sequential(*(_stage(c, early=early) for c in (w, 2 * w, 4 * w)))
        self.project = nn.Linear(8 * w, dimension)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.stages(self.stem(images)).amax(dim=(2, 3))
        projected: Tensor = self.project(pooled)
        return projected


class MultiScaleResNet(ResNet):
    """A ResNet whose linear layer also sees the means of the first two stages.

    These stages still have the colours and textures that distinguish images of one class; the
    last stage has lost them.
    ``halve``: halves the output of the stem, for 64×64 images: 117 MMAC an image.
    """

    def __init__(
        self, dimension: int, width: int, *, halve: bool = False, early: bool = False
    ) -> None:
        super().__init__(dimension, width, early=early)
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.project = nn.Linear((2 + 4 + 8) * width, dimension)

    def forward(self, images: Tensor) -> Tensor:
        first, second, third = self.stages
        low = first(self.pool(self.stem(images)))
        middle = second(low)
        high = third(middle)
        pooled = [low.mean(dim=(2, 3)), middle.mean(dim=(2, 3)), high.amax(dim=(2, 3))]
        projected: Tensor = self.project(torch.cat(pooled, dim=1))
        return projected


class PoolTo(nn.Module):
    """Adaptive pooling to ``side`` × ``side``, of operators that can be exported.

    ``reduce``: torch.amax or torch.mean, which pools each part.
    """

    def __init__(self, side: int, reduce: Callable[..., Tensor]) -> None:
        super().__init__()
        self.side, self.reduce = side, reduce

    def forward(self, x: Tensor) -> Tensor:
        for axis in (2, 3):
            length = x.shape[axis]
            ends = [
                (n * length // self.side, -(-(n + 1) * length // self.side))
                for n in range(self.side)
            ]
            parts = [
                self.reduce(x.narrow(axis, first, last - first), dim=axis, keepdim=True)
                for first, last in ends
            ]
            x = torch.cat(parts, dim=axis)
        return x


class CNNF(nn.Module):
    """CNN-F of Chatfield et al. (BMVC 2014, table 1), the paper's GPQ-F, for 224×224 images.

    It has five convolutions, two layers of 4,096 values and one linear layer to D: 60 M parameters.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(64, 256, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            PoolTo(6, torch.amax),  # at 224 the paper's 3×3 window with stride 2
        )
        self.full = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        )  # fmt: skip
        self.project = nn.Linear(4096, dimension)

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.project(self.full(self.convolutions(images).flatten(1)))
        return projected


class TorchvisionNet(nn.Module):
    """A network of torchvision whose last layer is replaced by a linear layer to D."""

    def __init__(self, dimension: int, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model  # slow to import, and only needed here

        self.body = get_model(name, weights=None)
        parent, last = self.body, "fc"
        if name == "alexnet":
            parent, last = self.body.classifier, "6"
            self.body.avgpool = PoolTo(6, torch.mean)
        self.project = nn.Linear(getattr(parent, last).in_features, dimension)
        setattr(parent, last, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.project(self.body(images))
        return projected


# The default widths of the networks that have a width.
DEFAULT_WIDTHS = {
    "vgg": 64, "resnet": 32, "resnet32": 32, "resnet64": 32, "early32": 32, "early64": 32,
}  # fmt: skip
TORCHVISION = ("alexnet", "resnet18", "resnet50")
EFFICIENTNETS = tuple(SCALES)
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vgg": VGG,
    "resnet": ResNet,
    "resnet32": MultiScaleResNet,
    "resnet64": partial(MultiScaleResNet, halve=True),
    "early32": partial(MultiScaleResNet, early=True),
    "early64": partial(MultiScaleResNet, halve=True, early=True),
    "cnn-f": CNNF,
    **{name: partial(TorchvisionNet, name=name) for name in TORCHVISION},
    **{name: partial(EfficientNetLite, name=name) for name in EFFICIENTNETS},
}


def build(name: str, dimension: int, width: int | None = None, classes: int = 0) -> nn.Module:
    """Builds the network ``name`` with D = ``dimension`` outputs; its last layer is ``project``.

    ``classes``: how many classes its last layer computes the probabilities of (``ClassProject``).
    Raises ValueError if the network does not exist, or if it needs torchvision, which is missing.
    """
    if name not in NETWORKS:
        raise ValueError(
            f"there is no network {name!r}; choose one of {', '.join(sorted(NETWORKS))}"
        )
    sizes = {"width": width or DEFAULT_WIDTHS[name]} if name in DEFAULT_WIDTHS else {}
    try:
        network = NETWORKS[name](dimension, **sizes)
    except ImportError as error:
        raise ValueError(
            f"network {name!r} needs torchvision: install the extra `train`"
        ) from error
    if classes:
        last = network.get_submodule("project")
        assert isinstance(last, nn.Linear)
        network.project = projection(last.in_features, dimension, classes)
    return network
