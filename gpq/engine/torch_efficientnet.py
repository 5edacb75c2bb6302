"""EfficientNet-Lite 0, 1 and 2 (Google 2020), with pooled features of one length.

They differ from EfficientNet (Tan & Le, ICML 2019) in three ways: ReLU6 instead of Swish, no
squeeze-and-excitation, and a stem and a head that are not scaled with the network.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM, HEAD = 32, 1280  # channels
EPSILON = 1e-3  # of batch norm, that of the published weights
LENGTH = 16.0  # of pooled features, about what the published networks have before it is fixed
DEPTH_DIVISOR = 8  # numbers of channels are multiples of it
# kernel, stride, expansion, channels and blocks of each stage, before scaling
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
SCALES = {  # of channels and of blocks
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}


class SameConv(nn.Conv2d):
    """A convolution without a bias, padded as TensorFlow's ``same``: an odd zero comes last."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        before, after = [], []
        for side in x.shape[2:]:
            missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            before.append(missing // 2)
            after.append(missing - missing // 2)
        if before == after:  # which the convolution pads itself, in less time
            return functional.conv2d(x, self.weight, None, self.stride, before, groups=self.groups)
        (top, left), (bottom, right) = before, after
        return super().forward(functional.pad(x, (left, right, top, bottom)))


def conv_bn(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    relu: bool = True,
) -> nn.Sequential:
    """Returns a convolution, a batch norm and, unless ``relu`` is false, a ReLU6."""
    layers: list[nn.Module] = [
        SameConv(channels_in, channels_out, kernel, stride, groups),
        nn.BatchNorm2d(channels_out, eps=EPSILON),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if relu else nn.Sequential(*layers)


class MBConv(nn.Module):
    """An inverted residual block: expand, convolve each channel, project.

    Its input is added if the shape stays the same.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = conv_bn(channels_in, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn(wide, wide, kernel, stride, groups=wide)
        self.reduce = conv_bn(wide, channels_out, 1, relu=False)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.reduce(self.depthwise(self.expand(x)))
        return out + x if self.residual else out


class Pool(nn.Module):
    """The mean over pixels, scaled to the length LENGTH: (B,C,H,W) -> (B,C).

    The length of the means says how sharp an image is rather than what it shows.
    """

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3))
        squares = (mean * mean).sum(dim=1, keepdim=True)
        return mean * (LENGTH / (squares + EPSILON).sqrt())


class EfficientNetLite(nn.Module):
    """A stem, seven stages, a head of 1,280 channels, a pool and a linear layer to D.

    ``name``: one of SCALES. The published networks take images of 224, 240 and 260 pixels.
    """

    def __init__(self, dimension: int, name: str) -> None:
        super().__init__()
        wider, deeper = SCALES[name]
        self.stem = conv_bn(3, STEM, 3, 2)
        stages: list[nn.Module] = []
        channels = STEM
        for number, (kernel, stride, expansion, width, count) in enumerate(STAGES):
            outer = number in (0, len(STAGES) - 1)  # like stem and head, not made deeper
            blocks: list[nn.Module] = []
            for block in range(count if outer else math.ceil(deeper * count)):
                out = _scaled(width, wider)
                blocks.append(MBConv(channels, out, kernel, 1 if block else stride, expansion))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = conv_bn(channels, HEAD, 1)
        self.pool = Pool()
        self.project = nn.Linear(HEAD, dimension)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(self.head(self.stages(self.stem(images))))
        projected: Tensor = self.project(pooled)
        return projected


def _scaled(channels: int, factor: float) -> int:
    """Scales a number of channels to the nearest multiple of DEPTH_DIVISOR, at most 10 % below."""
    wanted = channels * factor
    rounded = max(DEPTH_DIVISOR, int(wanted + DEPTH_DIVISOR / 2) // DEPTH_DIVISOR * DEPTH_DIVISOR)
    return rounded + DEPTH_DIVISOR if rounded < 0.9 * wanted else rounded


def from_published(state: dict[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    """Renames the tensors of a published checkpoint to those of ``network``, without ``project``.

    Published checkpoints number the blocks of all stages in one row, and name the batch norms of a
    block _bn0 to _bn2, or _bn1 and _bn2 if it does not expand.
    """
    renamed = {
        **_pair(state, "_conv_stem", "_bn0", "stem"),
        **_pair(state, "_conv_head", "_bn1", "head"),
    }
    number = 0
    for stage, blocks in enumerate(network.stages):
        assert isinstance(blocks, nn.Sequential)
        for place in range(len(blocks)):
            old, new = f"_blocks.{number}.", f"stages.{stage}.{place}."
            if f"{old}_expand_conv.weight" in state:
                renamed |= _pair(state, f"{old}_expand_conv", f"{old}_bn0", f"{new}expand")
            renamed |= _pair(state, f"{old}_depthwise_conv", f"{old}_bn1", f"{new}depthwise")
            renamed |= _pair(state, f"{old}_project_conv", f"{old}_bn2", f"{new}reduce")
            number += 1
    return renamed


def _pair(state: dict[str, Tensor], conv: str, norm: str, new: str) -> dict[str, Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {f"{new}.1.{name}": state[f"{norm}.{name}"] for name in names}
    counted = state.get(f"{norm}.num_batches_tracked", torch.tensor(0))
    return {
        f"{new}.0.weight": state[f"{conv}.weight"],
        **tensors,
        f"{new}.1.num_batches_tracked": counted,
    }
