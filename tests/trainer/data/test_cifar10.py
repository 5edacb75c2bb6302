import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from gpq.pixels.preprocess import Preprocess
from harness.images import tree
from trainer.data import cifar10
from trainer.errors import TrainerError

RULES = Preprocess(32)


def test_protocol_1_has_the_papers_sizes() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000)))
    split = cifar10.protocol_1(labels)
    queries, labelled, unlabelled = split.queries, split.labelled, split.unlabelled
    assert torch.equal(unlabelled, split.database)
    assert (len(queries), len(labelled), len(unlabelled)) == (1000, 5000, 54_000)
    assert len(set(torch.cat([queries, labelled, unlabelled]).tolist())) == 60_000
    assert labels[queries].bincount().tolist() == [100] * 10
    assert labels[labelled].bincount().tolist() == [500] * 10
    first_of_class_3 = (labels == 3).nonzero().flatten()
    assert first_of_class_3[0] in queries
    assert first_of_class_3[60] in queries
    assert first_of_class_3[1] == labelled[1500]


def cifar_tree(root: Path) -> Path:
    for part in ("train", "test"):
        for c in cifar10.CLASSES:
            tree(root, f"{part}/{c}/0001.png", f"{part}/{c}/0000.png")
    return root


def test_cifar10_from_the_jpeg_tree(tmp_path: Path) -> None:
    pixels, labels = cifar10.all_images(cifar_tree(tmp_path), RULES)
    assert labels.tolist() == [c for c in range(10) for _ in range(2)] * 2
    assert pixels.shape == (40, 3, 32, 32)
    (tmp_path / "train" / "zebra").mkdir()
    tree(tmp_path, "train/zebra/1.png")
    with pytest.raises(TrainerError, match="not CIFAR-10's"):
        cifar10.all_images(tmp_path, RULES)


def test_cifar10_from_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 3072), dtype=np.uint8)
    for number, (name, _) in enumerate(CIFAR10.train_list + CIFAR10.test_list):
        batch = {"data": pixels[number : number + 1], "labels": [number]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["x"]}))
    with pytest.raises(TrainerError, match="not found or corrupted"):
        cifar10.all_images(tmp_path, RULES)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    read, labels = cifar10.all_images(tmp_path, RULES)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert (read.numpy().reshape(6, -1) == pixels).all()
