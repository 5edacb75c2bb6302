import pytest
import torch

from gpq.engine import torch_architectures as network


@pytest.mark.parametrize("name", ["vgg", "resnet", "resnet32", "resnet64", "early32", "early64"])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("size", [32, 64])
def test_features_have_dimension_d(name: str, width: int, size: int) -> None:
    net = network.build(name, 36, width).eval()
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 36)


@pytest.mark.parametrize("name", ["cnn-f", *network.TORCHVISION])
def test_large_networks_have_dimension_d_at_224(name: str) -> None:
    net = network.build(name, 36).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 36)
    assert net.project.out_features == 36


def test_cnn_f_is_the_published_one() -> None:
    net = network.build("cnn-f", 48)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 256, 256, 256, 256]
    assert [c.kernel_size[0] for c in convolutions] == [11, 5, 3, 3, 3]
    last = torch.nn.MaxPool2d(3, stride=2)
    x = torch.randn(1, 256, 13, 13)
    assert torch.equal(net.convolutions[-1](x), last(x))


@pytest.mark.parametrize("length", [1, 4, 6, 7, 13, 24])
def test_adaptive_pooling_is_that_of_torch(length: int) -> None:
    x = torch.randn(2, 3, length, length)
    for reduce, reference in (
        (torch.amax, torch.nn.AdaptiveMaxPool2d(6)),
        (torch.mean, torch.nn.AdaptiveAvgPool2d(6)),
    ):
        assert torch.allclose(network.PoolTo(6, reduce)(x), reference(x), atol=1e-6)


def test_resnet64_sees_colours_that_its_last_stage_does_not() -> None:
    torch.manual_seed(0)
    net = network.build("resnet64", 36, 4).eval()
    net.stages[2][0][0].weight.data.zero_()  # the last stage is blind
    net.stages[2][1].body[0][0].weight.data.zero_()
    red, blue = torch.zeros(2, 1, 3, 64, 64)
    red[:, 0], blue[:, 2] = 1, 1
    assert not torch.allclose(net(red), net(blue))


def test_vgg_is_the_papers() -> None:
    net = network.build("vgg", 144)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512]
    assert net.project.in_features == 256 + 512


def test_an_unknown_network_is_named_with_those_that_exist() -> None:
    with pytest.raises(
        ValueError, match="'lenet'; choose one of alexnet, cnn-f, early32, early64, efficientnet-"
    ):
        network.build("lenet", 36)


@pytest.mark.parametrize(("late", "early"), [("resnet32", "early32"), ("resnet64", "early64")])
def test_a_network_that_halves_early_starts_from_one_that_does_not(late: str, early: str) -> None:
    weights = network.build(late, 36, 4).state_dict()
    network.build(early, 36, 4).load_state_dict(weights)
