import pytest
import torch

from gpq import network


@pytest.mark.parametrize("name", ["vgg", "resnet", "resnet64"])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("size", [32, 64])
def test_features_have_dimension_d(name: str, width: int, size: int) -> None:
    net = network.build(name, 36, width).eval()
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 36)


def test_vgg_is_the_papers() -> None:
    net = network.build("vgg", 144)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512]
    assert net.project.in_features == 256 + 512


def test_an_unknown_network_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'alexnet'; there are resnet, resnet64, vgg"):
        network.build("alexnet", 36)
