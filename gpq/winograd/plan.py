"""What a network's forward pass is made of, as steps of the kernel."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from gpq.winograd import library

LANES, PANEL = 16, 32  # channels of a map come in so many, those that a convolution makes too
COLOURS = 3
# What a kernel of 3×3 is multiplied with (Lavin and Gray, CVPR 2016, equation 13 for F(4,3)).
G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_TRACING = threading.Lock()  # of two that trace, each would put back what the other has put there


class Unsupported(ValueError):
    """A network of more than the kernel has steps for."""


@dataclass(frozen=True)
class Map:
    """(side, side, channels) of each picture."""

    side: int
    channels: int


@dataclass(frozen=True)
class Convolution:
    """One of ``source`` that is not a step yet: what follows on it belongs to the same step."""

    source: int
    layer: nn.Conv2d
    pool: bool = False
    norm: nn.BatchNorm2d | None = None


@dataclass(frozen=True)
class Features:
    """The mean of each channel of a map, or its largest: ``count`` from ``first`` on."""

    first: int
    count: int


@dataclass(frozen=True)
class Step:
    kind: int
    source: int
    to: int
    plus: int = -1
    pool: bool = False
    tensors: tuple[Tensor, ...] = ()  # weights, scale, shift


@dataclass
class Plan:
    """maps[0] is of the pictures. The last layer makes ``made`` of ``features``."""

    maps: list[Map]
    steps: list[Step] = field(default_factory=list)
    features: int = 0
    made: int = 0
    last: tuple[Tensor, ...] = ()  # weights, bias


def plan(network: nn.Module, side: int) -> Plan:
    """For pictures of ``side`` pixels a side. Raises Unsupported, saying what is."""
    try:
        with _TRACING:
            graph = _Tracer().trace(network)
    except Exception as error:  # whatever its forward raises on what is no tensor
        raise Unsupported(f"it cannot be traced: {error}") from error
    planner = _Planner(fx.GraphModule(network, graph), side)
    planner.run(0)
    if not planner.plan.last:
        raise Unsupported("it does not end in a linear layer")
    return planner.plan


class _Tracer(fx.Tracer):
    """While fx traces, a call of any module comes here, in all threads: those of others, who search
    meanwhile, go on as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _Planner(fx.Interpreter):
    """Goes through the network with numbers of maps, and Features, in the place of tensors."""

    def __init__(self, graph: fx.GraphModule, side: int) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # of an error: it is told in one line
        self.plan = Plan([Map(side, LANES)])

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        (x,), layer = args, self.fetch_attr(target)
        match layer, x:
            case nn.Identity(), _:
                return x
            case nn.Conv2d(), int():
                return self._convolution(layer, x)
            case nn.MaxPool2d(), int() | Convolution() if _halves(layer):
                return self._halved(x)
            case nn.BatchNorm2d(), Convolution(norm=None):
                return replace(x, norm=layer)
            case nn.ReLU(), Convolution(norm=nn.BatchNorm2d() as norm):
                return self._convolved(x, norm)
            case nn.Linear(), Features(first=0) if x.count == self.plan.features:
                self.plan.made, self.plan.last = layer.out_features, _in_panels(layer)
                return None
        raise Unsupported(f"{target}, {layer}")

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        match target.__name__, args:
            case "add", (int() as kept, int() as made):
                *before, step = self.plan.steps
                if step.kind == library.CONVOLVE and step.to == made and step.plus < 0:
                    self.plan.steps = [*before, replace(step, plus=kept)]
                    return made
            case "cat", (list() | tuple() as parts, *_) if _adjacent(parts):
                return Features(parts[0].first, sum(part.count for part in parts))
        raise Unsupported(f"{target.__name__} of {args}")

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        kind = {"mean": library.MEAN, "amax": library.MOST}.get(target)
        if kind is None or not isinstance(args[0], int) or kwargs != {"dim": (2, 3)}:
            raise Unsupported(f"{target} of {args}, {kwargs}")
        features = Features(self.plan.features, self.plan.maps[args[0]].channels)
        self.plan.steps.append(Step(kind, args[0], features.first))
        self.plan.features += features.count
        return features

    def _convolution(self, layer: nn.Conv2d, x: int) -> Convolution:
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        read = COLOURS if x == 0 else self.plan.maps[x].channels
        if (
            shape != ((3, 3), (1, 1), (1, 1), (1, 1), 1)
            or layer.bias is not None
            or layer.in_channels != read
            or layer.out_channels % PANEL
        ):
            raise Unsupported(f"{layer} of {read} channels")
        return Convolution(x, layer)

    def _halved(self, x: int | Convolution) -> int | Convolution:
        if isinstance(x, int):
            source = self.plan.maps[x]
            made = self._map(Map(source.side // 2, source.channels))
            self.plan.steps.append(Step(library.HALVE, x, made))
            return made
        if x.pool or x.norm:
            raise Unsupported("a pool behind a pool or a norm")
        return replace(x, pool=True)

    def _convolved(self, x: Convolution, norm: nn.BatchNorm2d) -> int:
        source = self.plan.maps[x.source]
        side = source.side // 2 if x.pool else source.side
        made = self._map(Map(side, x.layer.out_channels))
        weights = _transformed(x.layer.weight, source.channels)
        tensors = (weights, *_scale_and_shift(norm))
        self.plan.steps.append(Step(library.CONVOLVE, x.source, made, pool=x.pool, tensors=tensors))
        return made

    def _map(self, made: Map) -> int:
        if made.side < 1:
            raise Unsupported("its maps get smaller than a pixel")
        self.plan.maps.append(made)
        return len(self.plan.maps) - 1


def _halves(layer: nn.MaxPool2d) -> bool:
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    return shape == (2, 2, 0, 1, False)


def _adjacent(parts: Sequence[Any]) -> bool:
    """Each of them features behind those of the part before."""
    if not all(isinstance(part, Features) for part in parts):
        return False
    ends = [part.first + part.count for part in parts]
    return [part.first for part in parts] == [0, *ends[:-1]]


def _transformed(weights: Tensor, channels: int) -> Tensor:
    """(out, in, 3, 3) -> (36, out / PANEL, channels, PANEL) float32: G g Gᵀ of each kernel."""
    points = torch.einsum("ra,oiab,sb->rsio", G, weights.double(), G).flatten(0, 1)
    return _panels(nn.functional.pad(points, (0, 0, 0, channels - points.shape[1])))


def _in_panels(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weights (out / PANEL, rounded up; in, PANEL) and bias (out,) float32."""
    weights = nn.functional.pad(layer.weight.T, (0, -layer.out_features % PANEL))
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
    return _panels(weights[None]), bias.float()


def _panels(weights: Tensor) -> Tensor:
    """(n, in, out) -> (n, out / PANEL, in, PANEL) float32."""
    count, channels, _ = weights.shape
    panels = weights.detach().reshape(count, channels, -1, PANEL).transpose(1, 2)
    return panels.float().contiguous()


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What it does once it has learnt: x · scale + shift, (channels,) float32 each."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not norm.affine:
        raise Unsupported(f"{norm}")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    shift = norm.bias.double() - mean.double() * scale
    return scale.detach().float(), shift.detach().float()
