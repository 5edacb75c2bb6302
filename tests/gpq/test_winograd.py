"""The networks whose convolutions are our own, against the same layers of torch in float64."""

import copy
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gpq import winograd
from gpq.engine import inference
from gpq.engine.inference import in_one_call
from gpq.model import artifact
from gpq.model.network import build, conv_bn_relu
from gpq.winograd import library
from gpq.winograd.network import WinogradNetwork
from harness.models import SHIPPED

pytestmark = pytest.mark.skipif(bool(winograd.missing()), reason=winograd.missing())
SETS = ["avx512", "avx2"]
ROOT = Path(__file__).parent.parent.parent


def instructions_there() -> list[str]:
    return [name for name in SETS if library.instructions(name)]


def learnt(network: nn.Module, seed: int) -> nn.Module:
    """With means and variances as after a training, and scales of both signs."""
    random = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                for values in (layer.running_mean, layer.weight, layer.bias):
                    values.copy_(torch.randn(len(values), generator=random) / 2)
                layer.running_var.copy_(torch.rand(layer.num_features, generator=random) + 0.1)
    return network.eval()


@torch.inference_mode()
def assert_same(network: nn.Module, fast: WinogradNetwork, images: Tensor) -> None:
    expected = copy.deepcopy(network).double()(images.double())
    assert ((fast(images) - expected).abs().max() / expected.abs().max()).item() < 2e-5


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("name", ["vgg", "resnet", "resnet32", "resnet64", "early32", "early64"])
def test_every_network_of_ours_whose_width_suits(name: str, width: int) -> None:
    side = 64 if name.endswith("64") else 32
    torch.manual_seed(1)
    network = learnt(build(name, 144, width), seed=2)
    images = torch.randn(3, 3, side, side)
    for instructions in instructions_there():
        assert_same(network, WinogradNetwork(winograd.plan(network, side), instructions), images)


class Some(nn.Module):
    """Whatever there can be behind each other."""

    def __init__(self, pools: list[bool], early: bool, residual: bool, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(3, channels)
        self.layers = nn.ModuleList(conv_bn_relu(channels, channels, pool=pool) for pool in pools)
        self.halve = nn.MaxPool2d(2) if early else nn.Identity()
        self.body = conv_bn_relu(channels, channels) if residual else None
        self.project = nn.Linear(2 * channels, 24)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        low = x
        for layer in self.layers:
            x = layer(x)
        x = self.halve(x)
        if self.body is not None:
            x = x + self.body(x)
        return self.project(torch.cat([low.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    side=st.integers(8, 41),
    count=st.integers(1, 20),
    channels=st.sampled_from([32, 64, 96]),
    pools=st.lists(st.booleans(), max_size=3).filter(lambda pools: sum(pools) < 3),
    early=st.booleans(),
    residual=st.booleans(),
    size=st.sampled_from([1e-20, 1.0, 1e10]),
    instructions=st.sampled_from(SETS),
)
def test_sides_that_are_no_whole_tiles(
    seed, side, count, channels, pools, early, residual, size, instructions
) -> None:
    torch.manual_seed(seed)
    network = learnt(Some(pools, early, residual, channels), seed)
    instructions = instructions if library.instructions(instructions) else ""
    fast = WinogradNetwork(winograd.plan(network, side), instructions)
    for _ in range(2):  # what was there before must not matter
        assert_same(network, fast, torch.randn(count, 3, side, side) * size)


@pytest.fixture(scope="module")
def shipped() -> nn.Module:
    return artifact.load(SHIPPED).network.eval()


@torch.inference_mode()
def test_a_picture_comes_out_the_same_to_the_last_bit_in_any_batch(
    shipped: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = WinogradNetwork(winograd.plan(shipped, 32))
    images = torch.randn(65, 3, 32, 32)
    alone = torch.cat([fast(image[None]) for image in images])
    for threads in (1, 2, 3, 80):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for count in (2, 7, 8, 65):
            assert torch.equal(fast(images[:count]), alone[:count])
    assert fast(images[:0]).shape == (0, 144)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(fast(channels_last), alone)


def test_many_at_once(shipped: nn.Module) -> None:
    fast = WinogradNetwork(winograd.plan(shipped, 32))
    batches = [torch.randn(count, 3, 32, 32) for count in (1, 3, 9, 17)]

    @torch.inference_mode()
    def run(number: int) -> Tensor:
        return fast(batches[number % len(batches)])

    expected = [run(number) for number in range(len(batches))]
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(run, range(100))):
            assert torch.equal(found, expected[number % len(batches)])


def test_pictures_of_another_size_are_refused(shipped: nn.Module) -> None:
    fast = WinogradNetwork(winograd.plan(shipped, 32))
    for shape in ((1, 3, 64, 64), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match="images of shape"):
            fast(torch.zeros(shape))


class Ends(nn.Module):
    """One convolution, and then what is given."""

    def __init__(self, layers: nn.Module, count: int = 32) -> None:
        super().__init__()
        self.layers, self.project = layers, nn.Linear(count, 24)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.layers(images).mean(dim=(2, 3)))


class Looks(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (build("resnet18", 24), "Conv2d"),
        (build("resnet32", 24, 24), "3 channels"),
        (Ends(nn.Conv2d(3, 32, 3, padding=1)), "3 channels"),
        (Ends(nn.Conv2d(3, 32, 3, bias=False)), "3 channels"),
        (Ends(nn.Conv2d(3, 32, 3, padding=1, bias=False)), "mean"),
        (Ends(nn.Sequential(conv_bn_relu(3, 32), nn.MaxPool2d(3))), "MaxPool2d"),
        (Ends(nn.Sequential(conv_bn_relu(3, 32), nn.Sigmoid())), "Sigmoid"),
        (Ends(nn.Sequential(conv_bn_relu(3, 32), *[nn.MaxPool2d(2)] * 6)), "smaller than a pixel"),
        (Looks(), "cannot be traced"),
        (nn.Sequential(conv_bn_relu(3, 32)), "linear layer"),
    ],
)
def test_other_networks_are_not_tried(network: nn.Module, what: str) -> None:
    with pytest.raises(winograd.Unsupported, match=what) as caught:
        winograd.plan(network.eval(), 32)
    assert "executing" not in str(caught.value)


def test_a_model_is_run_by_it_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = artifact.load(SHIPPED)
    fast = in_one_call(model)
    assert isinstance(fast.network, WinogradNetwork)
    artifact.verify(fast, Path(SHIPPED))

    monkeypatch.setattr(winograd, "missing", lambda: "it was not built")
    with caplog.at_level(logging.DEBUG, "gpq"):
        assert isinstance(in_one_call(model).network, torch.jit.ScriptModule)
    assert "it was not built" in caplog.text


def test_one_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = artifact.load(SHIPPED)
    plan = winograd.plan(model.network.eval(), 32)
    wrong = [replace(step, plus=-1) for step in plan.steps]
    monkeypatch.setattr(winograd, "plan", lambda network, side: replace(plan, steps=wrong))
    with caplog.at_level(logging.WARNING, "gpq"):
        assert isinstance(inference.in_one_call(model).network, torch.jit.ScriptModule)
    assert "WinogradNetwork" in caplog.text


def test_other_threads_compute_while_a_plan_is_made(shipped: nn.Module) -> None:
    called = nn.Module.__call__
    alone, images = winograd.plan(shipped, 32), torch.randn(1, 3, 32, 32)
    fast = WinogradNetwork(alone)
    with ThreadPoolExecutor(4) as threads, torch.inference_mode():
        plans = [threads.submit(winograd.plan, copy.deepcopy(shipped), 32) for _ in range(20)]
        while not all(plan.done() for plan in plans):
            fast(images)
            shipped(images)
        assert {len(plan.result().steps) for plan in plans} == {len(alone.steps)}
    assert nn.Module.__call__ is called


def test_the_end_of_the_process_does_not_wait_or_crash_in_a_network() -> None:
    program = f"""
import threading, pathlib, torch
from gpq.model import artifact
from gpq import winograd
network = artifact.load(pathlib.Path({str(SHIPPED)!r})).network.eval()
fast = winograd.WinogradNetwork(winograd.plan(network, 32))
images, out = torch.zeros(64, 32, 32, 3), torch.zeros(64, fast.made)
def run():
    fast.kernel.gpq_network_run(fast.handle, images.data_ptr(), 64, out.data_ptr(), 2)
def run_on():  # without torch, which may abort in a thread that ends with the process
    while True:
        run()
threading.Thread(target=run_on, daemon=True).start()
run()
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_its_memory_is_given_back(shipped: nn.Module) -> None:
    plan = winograd.plan(shipped, 32)
    images = torch.zeros(16, 3, 32, 32)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def make_and_run() -> None:
        with torch.inference_mode():
            WinogradNetwork(plan)(images)

    make_and_run()
    before = resident()
    for _ in range(20):
        make_and_run()
    assert resident() - before < 20e6  # one takes some 14
