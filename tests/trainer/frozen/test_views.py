import numpy as np
import torch

from trainer.components.views import DROPPED, FeatureViews
from trainer.data.image_sets import Standard
from trainer.frozen.views import digest_of, key_of, view_of

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)


def test_a_view_depends_on_the_image_the_view_and_the_seed_alone() -> None:
    image, other = IMAGES
    digest = digest_of(image)
    views = [view_of(image, digest, view, 0) for view in range(6)]
    assert np.array_equal(views[0], image)
    assert np.array_equal(views[1], image[:, :, ::-1])
    torch.manual_seed(5)
    for view in range(6):
        assert np.array_equal(view_of(image, digest, view, 0), views[view])
        assert views[view].dtype == np.uint8 and views[view].shape == image.shape
    for one in range(2, 6):
        for two in range(one):
            assert not np.array_equal(views[one], views[two])
        assert not np.array_equal(view_of(image, digest, one, 1), views[one])
        assert not np.array_equal(view_of(image, digest_of(other), one, 0), views[one])


def test_keys_differ_whenever_features_may() -> None:
    digests = [digest_of(image) for image in IMAGES]
    assert digest_of(IMAGES[0][:, :, ::-1]) != digests[0]
    keys = [
        key_of(part, digest, view, seed)
        for part in ("one", "two")
        for digest in digests
        for view, seed in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("one", digests[0], 1, 7) == keys[1]  # no random number is drawn for a mirror


def marked(count: int) -> torch.Tensor:
    """Returns features (100,V,8) float16 that are the number of their view, plus one."""
    return (torch.arange(count).half() + 1)[None, :, None].expand(100, -1, 8).contiguous()


def seen(views: torch.Tensor) -> set[float]:
    return set(views.unique().tolist())


def test_weak_views_are_drawn_among_the_weak_ones_and_strong_views_among_all() -> None:
    views, generator = FeatureViews(), torch.Generator().manual_seed(0)
    for count, weak in ((1, {1}), (2, {1, 2}), (4, {1, 2, 3}), (6, {1, 2, 3, 5})):
        assert seen(views.weak(marked(count), generator)) == weak
        assert seen(views.strong(marked(count), generator)) == {*range(1, count + 1)}
        assert seen(views.plain(marked(count))) == {1}


def test_standardised_features_lose_some_to_their_mean() -> None:
    standard = Standard(torch.full((8,), 3.0), torch.full((8,), 0.5))
    views, generator = FeatureViews(standard), torch.Generator().manual_seed(0)
    features = torch.full((1000, 1, 8), 4.0).half()
    assert seen(views.weak(features, generator)) == seen(views.plain(features)) == {2}
    strong = views.strong(features, generator)
    assert seen(strong) == {0, 2}
    assert abs((strong == 0).float().mean().item() - DROPPED) < 0.03
    assert seen((strong == 0).float().mean(dim=0) > 0.1) == {True}  # each feature is dropped
