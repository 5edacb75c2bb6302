import numpy as np
import pytest

from trainer.methods.base import Lesson
from trainer.methods.shallow import products
from trainer.methods.shallow.products import balanced, lopq, opq, pq
from trainer.methods.shallow.reduction import reduction
from trainer.methods.shallow.signs import discrete, smoothest

pytestmark = pytest.mark.usefixtures("one_thread")


def lesson(features: np.ndarray, bits: int) -> Lesson:
    none = np.zeros((0, 1), dtype=np.uint8)
    return Lesson(features[:0], none, features, bits, seed=0)


@pytest.fixture(scope="module")
def stretched() -> np.ndarray:
    """Features (2000,24) whose variance lies in few directions."""
    rng = np.random.default_rng(0)
    scales = np.r_[np.full(4, 4.0), np.full(20, 0.3)]
    mixed = np.linalg.qr(rng.standard_normal((24, 24)))[0]
    return (rng.standard_normal((2000, 24)) * scales @ mixed + 3).astype(np.float32)


def test_the_reduction_keeps_the_directions_that_vary_most() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, 5)).astype(np.float32) * [9, 0.1, 5, 0.1, 0.1]
    found = reduction(features.astype(np.float32), 2, seed=0)
    assert np.abs(found.axes[[1, 3, 4]]).max() < 0.1
    assert found(features.astype(np.float32)).shape == (500, 2)


def test_dimensions_are_dealt_to_the_codebook_with_the_smallest_product() -> None:
    assert balanced(np.array([8, 4, 2, 1], dtype=np.float32), 2).tolist() == [[0, 3], [1, 2]]


def error(coder, features: np.ndarray) -> float:
    """Mean squared distance between reduced features and what their codes stand for."""
    codes = coder.encode(features)
    own = np.diagonal(coder.scores(features[:300], codes[:300]))
    return float(2 * (1 - own).mean())


def test_a_learnt_rotation_lowers_the_error_and_local_ones_lower_it_further(
    stretched: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LEAST_OF_A_CELL", 60)
    given = lesson(stretched, 12)
    coder, learnt = pq(given), opq(given)
    reduced = reduction(stretched, 24, 0)(stretched[:300])
    lengths = float((reduced**2).sum(axis=1).mean())
    plain, rotated = error(coder, stretched), error(learnt, stretched)
    local = error(lopq(given), stretched)
    assert local < rotated < plain < lengths


def test_the_smoothest_waves_are_the_longest() -> None:
    axis, mode = smoothest(np.array([2, 1.5], dtype=np.float32), 4)
    # frequencies: 1/2, 2/2, 3/2 … and 1/1.5, 2/1.5 …
    assert list(zip(axis.tolist(), mode.tolist(), strict=True)) == [(0, 1), (1, 1), (0, 2), (1, 2)]


def test_bits_of_sdh_are_found_one_after_the_other() -> None:
    Q = np.array([[0.4, 0.1], [-0.2, 3.0]], dtype=np.float32)
    alone = discrete(np.ones((2, 2), dtype=np.float32), np.eye(2, dtype=np.float32), Q)
    assert alone.tolist() == [[1, 1], [-1, 1]]
    # With equal rows of W the second bit must differ where the first one is strong enough.
    W = np.ones((2, 1), dtype=np.float32)
    assert discrete(np.ones((2, 2), dtype=np.float32), W, Q).tolist() == [[-1, 1], [-1, 1]]
