import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from gpq.preprocess import Preprocess
from tests.images import png
from trainer import data
from trainer.errors import TrainerError

RULES = Preprocess(32)


def tree(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    return root


def test_folder_of_labelled_and_unlabelled(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/b/1.png", "labeled/a/x/2.png", "labeled/a/1.png", "unlabeled/d/e/3.png")
    (tmp_path / "unlabeled" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "labeled" / "empty").mkdir()
    (tmp_path / "labeled" / "a" / ".DS_Store").write_bytes(b"x")
    pictures = data.training_set(tmp_path, "folder", RULES)
    assert pictures.classes == ("a", "b")
    assert pictures.labels.tolist() == [0, 0, 1]
    assert pictures.labelled.shape == (3, 3, 32, 32)
    assert pictures.labelled.dtype == torch.uint8
    assert len(pictures.unlabelled) == 1
    assert len(pictures.skipped) == 1
    assert "broken.jpg: not an image" in pictures.skipped[0]


def test_pixels_are_those_the_service_encodes(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    pictures = data.training_set(tmp_path, "folder", RULES)
    expected = RULES.pixels(Image.open(tmp_path / "labeled/a/1.png")).transpose(2, 0, 1)
    assert (pictures.labelled[0].numpy() == expected).all()
    assert torch.equal(pictures.unlabelled, pictures.labelled)  # none given: the labelled serve


@pytest.mark.parametrize("paths", [(), ("labeled/a/1.png",)])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, paths: tuple[str, ...]) -> None:
    tree(tmp_path, *paths)
    with pytest.raises(TrainerError, match="labeled"):
        data.training_set(tmp_path, "folder", RULES)


def test_a_class_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    (tmp_path / "labeled/b/1.png").write_bytes(b"broken")
    with pytest.raises(TrainerError, match="b"):
        data.training_set(tmp_path, "folder", RULES)


def test_retrieval_set_of_folders(tmp_path: Path) -> None:
    tree(
        tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "test/b/1.png"
    )
    pictures = data.retrieval_set(tmp_path, "folder", RULES)
    assert pictures.database_labels.tolist() == [0, 1, 2]
    assert pictures.query_labels.tolist() == [1, 2]
    tree(tmp_path, "test/z/1.png")
    with pytest.raises(TrainerError, match="train/ lacks: z"):
        data.retrieval_set(tmp_path, "folder", RULES)


def test_protocol_1_has_the_papers_sizes() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000)))
    queries, labelled, unlabelled = data.protocol_1(labels)
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
        for c in data.CIFAR10_CLASSES:
            tree(root, f"{part}/{c}/0001.png", f"{part}/{c}/0000.png")
    return root


def test_cifar10_from_the_jpeg_tree(tmp_path: Path) -> None:
    pixels, labels = data._cifar10(cifar_tree(tmp_path), RULES)
    assert labels.tolist() == [c for c in range(10) for _ in range(2)] * 2
    assert pixels.shape == (40, 3, 32, 32)
    (tmp_path / "train" / "zebra").mkdir()
    tree(tmp_path, "train/zebra/1.png")
    with pytest.raises(TrainerError, match="not those of CIFAR-10"):
        data._cifar10(tmp_path, RULES)


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
        data._cifar10(tmp_path, RULES)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    read, labels = data._cifar10(tmp_path, RULES)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert (read.numpy().reshape(6, -1) == pixels).all()


def test_a_folder_that_is_no_cifar10_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="is no CIFAR-10"):
        data.training_set(tmp_path, "cifar10", RULES)
