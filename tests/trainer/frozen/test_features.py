"""Features are the same from the cache, from the frozen part, and in any company."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gpq.pixels.preprocess import Preprocess
from harness.images import tree
from tests.trainer.artifacts.test_graph import network
from tests.trainer.recipes.test_recipe import config
from trainer.config import Config
from trainer.data.image_sets import listed
from trainer.data.images import FileImages
from trainer.errors import TrainerError
from trainer.frozen.cache import FeatureCache
from trainer.frozen.estimate import Estimate, estimate
from trainer.frozen.features import ViewFeatures, features_of, standard_of
from trainer.frozen.part import FrozenNetwork, Running, folded, unfolded

RULES = Preprocess(32)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)


def frozen(**more: object) -> FrozenNetwork:
    wanted = config("modern", network="resnet", freeze="all", views=4, **more)
    made = network("resnet")
    made.project = torch.nn.Linear(256, 12 * wanted.M)
    return FrozenNetwork(made, wanted.stages, wanted, RULES)


@pytest.fixture(scope="module")
def part() -> Iterator[Running]:
    with frozen().running("cpu") as running:
        yield running


def compute(part: Running, folder: Path | None = None, seed: int = 0) -> ViewFeatures:
    limit = 10**9 if folder else 0
    return ViewFeatures(part, FeatureCache(folder or Path(), limit), seed)


def test_features_do_not_depend_on_the_cache_or_on_their_company(
    part: Running, tmp_path: Path
) -> None:
    wanted = compute(part).of_pixels(PIXELS, 4)
    assert wanted.shape == (40, 4, 256) and wanted.dtype == np.float16
    partly = compute(part, tmp_path)
    partly.of_pixels(PIXELS[5:9], 2)
    assert partly.computed == 8
    assert np.array_equal(partly.of_pixels(PIXELS, 4), wanted)
    assert partly.computed == 160
    again = compute(part, tmp_path)
    assert again.missing(PIXELS, 4) == 0
    assert np.array_equal(again.of_pixels(PIXELS, 4), wanted)
    assert again.computed == 0
    alone = compute(part)
    assert np.array_equal(alone.of_pixels(PIXELS[17:18], 4)[0], wanted[17])
    other = compute(part, tmp_path, seed=1)
    assert other.missing(PIXELS, 4) == 0.5
    assert np.array_equal(other.of_pixels(PIXELS, 4)[:, :2], wanted[:, :2])


def test_features_are_those_of_the_network(part: Running) -> None:
    made = frozen()
    found = torch.from_numpy(compute(part).of_pixels(PIXELS, 2)).float()
    with torch.inference_mode():
        for view, images in ((0, PIXELS), (1, PIXELS[..., ::-1].copy())):
            wanted = made.network(torch.from_numpy(RULES.normalise(images)))
            assert torch.allclose(made.rest()(found[:, view]), wanted, atol=0.02)


def test_large_features_are_stored_as_the_largest_number() -> None:
    huge = Running(lambda images: np.full((len(images), 3), 1e6, np.float32), "huge")
    assert np.isfinite(compute(huge).of_pixels(PIXELS[:2], 1)).all()


def test_folding_is_undone_by_unfolding() -> None:
    torch.manual_seed(0)
    head = torch.nn.Module()
    head.project = torch.nn.Linear(6, 4)
    features = torch.randn(50, 2, 6) * torch.tensor([1, 2, 3, 4, 5, 0.0]) + 7
    standard = standard_of(features)
    standardised = (features - standard.mean) / standard.deviation
    raw = folded(head.state_dict(), standard)
    wanted = head.project(standardised)
    found = features @ raw["project.weight"].T + raw["project.bias"]
    assert torch.allclose(found, wanted, atol=1e-4)
    again = unfolded(raw, standard)
    assert torch.allclose(again["project.weight"], head.project.weight, atol=1e-5)
    assert torch.allclose(again["project.bias"], head.project.bias, atol=1e-5)


def test_a_constant_feature_is_not_blown_up() -> None:
    features = torch.randn(100, 1, 8)
    features[..., 3] = 1
    assert standard_of(features.half()).deviation[3] > 1e-3


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = [f"labeled/{c}/{n}.png" for c in "ab" for n in range(12)]
    root = tree(tmp_path / "photos", *names, *(f"unlabeled/{n}.png" for n in range(5)))
    (root / "labeled" / "a" / "broken.png").write_bytes(b"no image")
    (root / "unlabeled" / "broken.png").write_bytes(b"no image")
    return root


def test_held_out_images_have_one_view_and_broken_files_are_listed(
    part: Running, photos: Path
) -> None:
    made = compute(part)
    data, held = features_of(listed(photos, "folder", RULES), made, 4, 0.2, 0, pooled=True)
    assert held is not None
    assert len(data.labelled) + len(held.labels) == 24
    assert data.labelled.shape[1:] == (4, 256) and held.pixels.shape[1:] == (1, 256)
    assert data.unlabelled.shape == (5, 4, 256)
    assert made.computed == 4 * (len(data.labelled) + 5) + len(held.labels)
    assert [line.partition(": ")[0][-10:] for line in data.skipped] == ["broken.png"] * 2
    rows = torch.arange(len(data.labelled))
    pixels = data.labelled_pixels(rows).numpy()
    assert np.array_equal(made.of_pixels(pixels, 4), data.labelled.numpy())
    held_pixels = held.pictures(torch.arange(len(held.labels))).numpy()
    assert np.array_equal(made.of_pixels(held_pixels, 1), held.pixels.numpy())
    others = data.unlabelled_pixels(torch.arange(5)).numpy()
    assert np.array_equal(made.of_pixels(others, 4), data.unlabelled.numpy())


def test_without_other_images_the_labelled_ones_are_the_unlabelled_ones(
    part: Running, photos: Path
) -> None:
    for file in (photos / "unlabeled").glob("?.png"):
        file.unlink()
    data, _ = features_of(listed(photos, "folder", RULES), compute(part), 1, 0, 0, pooled=False)
    assert data.all_labelled and data.standard is None
    assert torch.equal(
        data.labelled_pixels(torch.tensor([3])), data.unlabelled_pixels(torch.tensor([3]))
    )


def test_a_class_without_an_image_that_can_be_read_is_an_error(part: Running, photos: Path) -> None:
    for file in (photos / "labeled" / "a").glob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(TrainerError, match=r"no image of a can be read; the first error is .*a/0"):
        features_of(listed(photos, "folder", RULES), compute(part), 1, 0, 0, pooled=True)


def test_a_file_that_vanishes_during_a_run_is_a_clear_error(photos: Path) -> None:
    images = FileImages(sorted((photos / "labeled" / "b").iterdir()), RULES)
    images.files[3].unlink()
    with pytest.raises(TrainerError, match="readable before"):
        images.pixels(torch.tensor([2, 3]))
    assert len(images.pixels(torch.tensor([2, 4]))) == 2


def test_the_estimate_counts_what_is_not_cached(
    part: Running, photos: Path, tmp_path: Path
) -> None:
    made, wanted = frozen(), config("modern", network="resnet", freeze="all", views=4)
    images, device = listed(photos, "folder", RULES), torch.device("cpu")
    torch.manual_seed(3)
    first = estimate(images, compute(part, tmp_path), made, wanted, RULES, device)
    assert first is not None
    assert (first.images, first.views, first.steps) == (31, 4 * 31, wanted.steps)
    assert first.step > 0 and first.rate > 0
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))  # no random number is used up
    second = estimate(images, compute(part, tmp_path), made, wanted, RULES, device)
    assert second is not None and second.views == 0
    assert second.seconds < 60


def test_an_estimate_is_in_words() -> None:
    found = Estimate(1000, 4000, 100.0, 20.0, 0.02, 4500)
    assert found.seconds == pytest.approx(20 + 40 + 90)
    assert str(found) == (
        "this run takes about 2 minutes: 1,000 images to read, 4,000 views to compute at 100 a "
        "second, and 4,500 steps of 20 ms"
    )


def test_the_rest_of_a_configuration() -> None:
    def made(freeze: str) -> Config:
        return config("modern", freeze=freeze)

    assert made("all").frozen and made("all").stages is None
    assert made("5").frozen and made("5").stages == 5
    assert not made("none").frozen
