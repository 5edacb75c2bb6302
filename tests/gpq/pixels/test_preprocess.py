import numpy as np
import pytest
from PIL import Image

from gpq.pixels.preprocess import Preprocess
from harness.images import quarters


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (31, 33), (32, 32)])
def test_any_shape_fills_the_square(size: tuple[int, int]) -> None:
    pixels = Preprocess(32).pixels(Image.new("RGB", size, (10, 20, 30)))
    assert pixels.shape == (32, 32, 3)
    assert (pixels == [10, 20, 30]).all()


def test_the_crop_is_the_centre() -> None:
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste(quarters(), (32, 0))
    assert (Preprocess(32).pixels(wide) == np.asarray(quarters())).all()


def test_pixels_are_normalised_by_channel() -> None:
    rules = Preprocess(32, mean=(100.0, 0.0, 0.0), std=(50.0, 1.0, 2.0))
    pixels = rules.pixels(Image.new("RGB", (5, 5), (200, 7, 8)))
    out = rules.normalise(pixels[None].transpose(0, 3, 1, 2))
    assert out.shape == (1, 3, 32, 32)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out[0, :, 0, 0].tolist() == [2.0, 7.0, 4.0]
    assert rules.normalise(np.empty((0, 3, 32, 32), dtype=np.uint8)).shape == (0, 3, 32, 32)


def test_an_unknown_rule_is_refused() -> None:
    config = {"size": 32, "mean": [1, 2, 3], "std": [1, 2, 3], "crop": "five-crop"}
    with pytest.raises(ValueError, match="five-crop"):
        Preprocess.from_config(config)
    with pytest.raises(ValueError, match="'jpeg': 'scaled-to-twice'"):
        Preprocess.from_config({**config, "crop": "centre", "jpeg": "tiny"})


def test_jpeg_is_decoded_whole_if_an_artifact_does_not_say_otherwise() -> None:
    config = {"size": 32, "mean": [1, 2, 3], "std": [1, 2, 3]}
    assert Preprocess.from_config(config).shrink_to is None
    assert Preprocess.from_config({**config, "jpeg": "scaled-to-twice"}).shrink_to == 64
