from pathlib import Path

import pytest
import torch
from PIL import Image

from gpq.pixels.preprocess import Preprocess
from harness.images import tree
from trainer.data import image_sets
from trainer.device import has_room
from trainer.errors import TrainerError

RULES = Preprocess(32)


def test_a_folder_of_labelled_and_unlabelled_images(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/b/1.png", "labeled/a/x/2.png", "labeled/a/1.png", "unlabeled/d/e/3.png")
    (tmp_path / "unlabeled" / "broken.jpg").write_bytes(b"not an image")
    (tmp_path / "labeled" / "empty").mkdir()
    (tmp_path / "labeled" / "a" / ".DS_Store").write_bytes(b"x")
    images = image_sets.training_set(tmp_path, "folder", RULES)
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert images.labelled.shape == (3, 3, 32, 32)
    assert images.labelled.dtype == torch.uint8
    assert len(images.unlabelled) == 1
    assert len(images.skipped) == 1
    assert "broken.jpg: not an image" in images.skipped[0]


def test_pixels_are_those_the_service_encodes(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    images = image_sets.training_set(tmp_path, "folder", RULES)
    expected = RULES.pixels(Image.open(tmp_path / "labeled/a/1.png")).transpose(2, 0, 1)
    assert (images.labelled[0].numpy() == expected).all()
    assert torch.equal(images.unlabelled, images.labelled)  # there are no others


@pytest.mark.parametrize("paths", [(), ("labeled/a/1.png",)])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, paths: tuple[str, ...]) -> None:
    tree(tmp_path, *paths)
    with pytest.raises(TrainerError, match="labeled"):
        image_sets.training_set(tmp_path, "folder", RULES)


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    (tmp_path / "labeled/b/1.png").write_bytes(b"broken")
    with pytest.raises(TrainerError, match=r"no image of b can be read; .* leave the label out"):
        image_sets.training_set(tmp_path, "folder", RULES)


def test_images_outside_the_class_folders_are_reported(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png", "labeled/loose.png")
    images = image_sets.training_set(tmp_path, "folder", RULES)
    assert len(images.labelled) == 2
    assert images.skipped == [f"{tmp_path}/labeled/loose.png: not in the folder of a class"]


def test_a_label_of_all_images_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "0.png", "1.png")
    (tmp_path / "table.csv").write_text("path,labels\n0.png,shop|red\n1.png,blue|shop\n")
    with pytest.raises(TrainerError, match=r"every labelled image has the label shop, .* leave"):
        image_sets.training_set(tmp_path / "table.csv", "folder", RULES)


def test_misspelt_folders_and_unknown_files_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png", "unlabelled/1.png", "table.tsv")
    with pytest.raises(TrainerError, match="unlabelled would be ignored: rename it to unlabeled"):
        image_sets.training_set(tmp_path, "folder", RULES)
    with pytest.raises(TrainerError, match=r"table\.tsv is neither a folder nor a table: .* \.csv"):
        image_sets.training_set(tmp_path / "table.tsv", "folder", RULES)


def test_retrieval_set_of_folders(tmp_path: Path) -> None:
    tree(
        tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "test/b/1.png"
    )
    images = image_sets.retrieval_set(tmp_path, "folder", RULES)
    assert images.database_labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert images.query_labels.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert images.own_rows is None
    tree(tmp_path, "test/z/1.png")
    with pytest.raises(
        TrainerError, match="1 queries have no class of the database; their classes: z"
    ):
        image_sets.retrieval_set(tmp_path, "folder", RULES)


def test_a_folder_that_is_not_cifar10_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="is not CIFAR-10"):
        image_sets.training_set(tmp_path, "cifar10", RULES)


def test_any_folder_of_classes_is_searched_leaving_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(5)))
    images = image_sets.retrieval_set(tmp_path, "folder", RULES)
    assert images.own_rows.tolist() == list(range(10))
    assert torch.equal(images.queries, images.database)
    monkeypatch.setattr(image_sets, "LEAVE_ONE_OUT_QUERIES", 3)
    fewer = image_sets.retrieval_set(tmp_path, "folder", RULES)
    assert fewer.own_rows.tolist() == [0, 4, 9]
    assert torch.equal(fewer.queries, fewer.database[fewer.own_rows])
    with pytest.raises(TrainerError, match="no images to evaluate on"):
        image_sets.retrieval_set(tmp_path / "a", "folder", RULES)


def test_the_layout_of_training_is_searched_by_its_classes(tmp_path: Path) -> None:
    tree(tmp_path, *(f"labeled/{c}/{n}.png" for c in "ab" for n in range(2)), "unlabeled/1.png")
    images = image_sets.retrieval_set(tmp_path, "folder", RULES)
    assert images.classes == ("a", "b")
    assert len(images.database) == len(images.own_rows) == 4


@pytest.mark.parametrize("parts", [("train",), ("test",), ("train", "val"), ("unlabeled",)])
def test_parts_are_not_taken_for_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    tree(tmp_path, *(f"{part}/{c}/1.png" for part in parts for c in "ab"))
    with pytest.raises(
        TrainerError, match=f"{parts[0]}/.* not classes: give a folder with both train/"
    ):
        image_sets.retrieval_set(tmp_path, "folder", RULES)
    tree(tmp_path, "car/1.png", "car/2.png")  # a class may be called train if there are others
    assert "car" in image_sets.retrieval_set(tmp_path, "folder", RULES).classes


def test_a_manifest_without_queries_is_searched_leaving_one_out(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{n}.png" for n in range(4)))
    table = tmp_path / "images.CSV"
    table.write_text("path,labels\n0.png,red\n1.png,red\n2.png,\n3.png,blue|red\n")
    images = image_sets.retrieval_set(table, "folder", RULES)
    assert images.classes == ("blue", "red")
    assert images.own_rows.tolist() == [0, 1, 2]
    assert images.database_labels.tolist() == [[0, 1], [0, 1], [1, 1]]


def test_a_manifest_is_trained_on_and_searched(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{n}.png" for n in range(6)))
    table = tmp_path / "images.csv"
    table.write_text(
        "path,labels,split\n0.png,red|round,\n1.png,round,train\n2.png,,\n"
        "3.png,red,database\n4.png,,database\n5.png,round|red,query\nmissing.png,red,train\n"
    )
    images = image_sets.training_set(table, "folder", RULES)
    assert images.classes == ("red", "round")
    assert images.labels.tolist() == [[1, 1], [0, 1]]
    assert len(images.unlabelled) == 1
    assert "missing.png: " in images.skipped[0]
    searched = image_sets.retrieval_set(table, "folder", RULES)
    assert searched.classes == ("red", "round")
    assert searched.query_labels.tolist() == [[1, 1]]
    assert searched.database_labels.tolist() == [[1, 0], [0, 0]]


def test_images_stay_in_the_hosts_memory_if_a_device_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png", "unlabeled/1.png")
    images, asked = image_sets.training_set(tmp_path, "folder", RULES), []
    monkeypatch.setattr(image_sets, "has_room", lambda size, device: asked.append(size))
    assert images.to(torch.device("meta")) is images
    assert asked == [3 * 3 * 32 * 32 + 2 * 2]
    monkeypatch.setattr(image_sets, "has_room", lambda size, device: True)
    moved = images.to(torch.device("meta"))
    assert {moved.labelled.device.type, moved.unlabelled.device.type} == {"meta"}


def test_a_gpu_has_room_for_half_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    assert has_room(50, torch.device("cuda")) and not has_room(51, torch.device("cuda"))
    assert has_room(10**18, torch.device("cpu"))


def test_without_unlabelled_images_the_labelled_ones_are_used(tmp_path: Path) -> None:
    tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    images = image_sets.training_set(tmp_path, "folder", RULES)
    assert torch.equal(images.unlabelled, images.labelled)
