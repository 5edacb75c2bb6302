import numpy as np
from torch import nn

from gpq.model.codebook import Codebook
from trainer.methods.base import CodebookCoder, signs_of


def floats(values: object) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_four_signs_are_a_sub_code_and_scores_count_equal_signs() -> None:
    coder = signs_of(nn.Identity(), 8)
    features = floats([[1, -1, 2, 3, -1, -1, -1, 4], [1, 1, 2, 3, -1, -1, -1, 4], [-1] * 8])
    codes = coder.encode(features)
    assert codes.tolist() == [[1 + 4 + 8, 8], [15, 8], [0, 0]]
    assert coder.scores(features[:1], codes).tolist() == [[1, 0.75, 0]]


def test_a_product_code_names_the_nearest_words() -> None:
    words = np.full((2, 16, 1), 100, dtype=np.float32)
    words[:, :3, 0] = [[0, 2, 5], [-1, 1, 4]]
    features = floats([[1.5, -3.0], [4.0, 3.0]])
    coder = CodebookCoder(nn.Identity(), Codebook(words, score="dot"))
    codes = coder.encode(features)
    assert codes.tolist() == [[1, 0], [2, 2]]
    # 1.5·2 + 3·1, and 1.5·5 - 3·4
    assert coder.scores(features[:1], codes).tolist() == [[6.0, -4.5]]


def test_squared_distances_rank_as_distances_do() -> None:
    rng = np.random.default_rng(0)
    words = rng.standard_normal((3, 16, 4)).astype(np.float32)
    features = rng.standard_normal((20, 12)).astype(np.float32)
    coder = CodebookCoder(nn.Identity(), Codebook(words, score="l2"))
    codes = coder.encode(features)
    decoded = words[np.arange(3), codes].reshape(20, 12)
    distances = ((features[:, None] - decoded) ** 2).sum(axis=2)
    assert np.allclose(coder.scores(features, codes), 1 - distances / 2, atol=1e-4)
