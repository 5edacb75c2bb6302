"""Tests of perceptual hashes on photographs."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from gpq.pixels import perceptual
from harness import ROOT

PHOTOGRAPHS = sorted((ROOT / "examples").glob("*/*.jpg"))[::20]
LIKELY = 20  # bits in which a computed hash and one that is derived may differ
UNRELATED = 80


def distance(one: bytes, other: bytes) -> int:
    return int(
        np.bitwise_count(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum()
    )


def open_rgb(path) -> Image.Image:
    return Image.open(path).convert("RGB")


def test_the_hashes_of_turned_images_follow_from_the_hash() -> None:
    assert len(PHOTOGRAPHS) > 8
    for path in PHOTOGRAPHS:
        image = open_rgb(path)
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        derived = perceptual.turned(perceptual.pdq(image)[0])
        turns = [each.rotate(-90 * n, expand=True) for each in (image, mirrored) for n in range(4)]
        computed = [perceptual.pdq(each)[0] for each in turns]
        for n, one in enumerate(derived):
            for m, other in enumerate(computed):
                far = distance(one, other)
                assert far <= LIKELY if n == m else far >= UNRELATED, (path, n, m)


def test_copies_are_near_and_other_images_are_far() -> None:
    images = [open_rgb(path) for path in PHOTOGRAPHS]
    hashes = [perceptual.pdq(image)[0] for image in images]
    for image, hash in zip(images, hashes, strict=True):
        small = image.resize((max(1, image.width // 2), max(1, image.height // 2)))
        dark = ImageEnhance.Brightness(image).enhance(0.7)
        for copy in (small, dark, image.convert("L").convert("RGB")):
            assert distance(hash, perceptual.pdq(copy)[0]) <= 31
    others = [distance(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(others) > 64


def test_a_plain_image_has_a_low_quality() -> None:
    assert perceptual.pdq(Image.new("RGB", (100, 80), "white"))[1] == 0
    assert perceptual.pdq(open_rgb(PHOTOGRAPHS[0]))[1] == 100
    assert len(perceptual.pdq(Image.new("RGB", (1, 1)))[0]) == perceptual.HASH_BYTES


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert perceptual.missing() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "gpq-search[copies]" in perceptual.missing()
