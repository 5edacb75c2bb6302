from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from gpq.pixels.preprocess import Preprocess
from harness.images import png
from trainer.data import datasets, image_sets, nuswide
from trainer.data.protocol import unseen_classes
from trainer.errors import TrainerError

RULES = Preprocess(32)


def test_protocol_2_has_the_papers_sizes() -> None:
    labels = one_hot(torch.arange(10).repeat(6000))
    split = unseen_classes(labels, seed=0)
    sizes = [len(part) for part in (split.queries, split.labelled, split.database)]
    assert sizes == [9000, 21_000, 30_000]
    assert len(split.seen) == 7
    assert torch.equal(split.unlabelled, split.database)
    together = torch.cat([split.queries, split.labelled, split.database])
    assert len(set(together.tolist())) == 60_000
    assert not labels[split.queries][:, split.seen].any()
    assert labels[split.labelled][:, split.seen].all(dim=0).sum() == 0
    assert labels[split.labelled][:, split.seen].sum(dim=0).tolist() == [3000] * 7
    # Classes are halved in file order: labelled images come before those of the database.
    c = int(split.seen[0])
    of_class = labels[:, c].bool()
    assert (
        split.labelled[of_class[split.labelled]].max()
        < split.database[of_class[split.database]].min()
    )


def test_the_five_draws_of_unseen_classes_differ_and_repeat() -> None:
    labels = one_hot(torch.arange(10).repeat(20))
    draws = [tuple(unseen_classes(labels, seed).seen.tolist()) for seed in range(datasets.DRAWS)]
    assert len(set(draws)) == datasets.DRAWS
    assert draws[3] == tuple(unseen_classes(labels, 3).seen.tolist())


def nuswide_tree(root: Path, images: int = 12, concepts: int = 3) -> np.ndarray:
    """Writes the published layout with few images; returns which image has which concept.

    Concept c is in every image whose number c + 1 divides, except that concept 0 is in no image
    whose number 6 divides.
    """
    table = np.array([[row % (c + 1) == 0 for c in range(concepts)] for row in range(images)])
    table[::6, 0] = False
    (root / "ImageList").mkdir(parents=True)
    (root / "Groundtruth" / "AllLabels").mkdir(parents=True)
    names = [f"folder{row % 2}\\{row:04}_9.jpg" for row in range(images)]
    (root / "ImageList" / "Imagelist.txt").write_text("\n".join(names) + "\n")
    for c in range(concepts):
        lines = "\n".join(str(int(value)) for value in table[:, c])
        (root / "Groundtruth" / "AllLabels" / f"Labels_concept{c}.txt").write_text(lines + "\n")
    for row in range(images):
        file = root / "Flickr" / f"folder{row % 2}" / f"{row:04}_9.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(row))
    return table


def test_nuswide_is_read_from_its_published_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = nuswide_tree(tmp_path)
    (tmp_path / "Flickr" / "folder1" / "0003_9.jpg").unlink()  # deleted from Flickr
    pixels, labels, concepts, skipped = nuswide.all_images(tmp_path, RULES)
    assert concepts == ("concept0", "concept1", "concept2")
    kept = [row for row in range(12) if row != 3]
    assert labels.tolist() == table[kept].astype(int).tolist()
    assert len(pixels) == 11
    assert "0003_9.jpg" in skipped[0]
    monkeypatch.setattr(nuswide, "CONCEPTS", 2)
    assert nuswide.all_images(tmp_path, RULES)[2] == ("concept0", "concept1")


def test_nuswide_protocol_1_draws_queries_and_labels_of_each_concept() -> None:
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(4000, 3, generator=random) < 0.5).to(torch.uint8)
    split = nuswide.protocol_1(labels)
    assert len(split.queries) == 300
    assert len(split.labelled) == 1500
    together = torch.cat([split.queries, split.labelled, split.database])
    assert len(set(together.tolist())) == 4000
    assert (labels[split.queries].sum(dim=0) >= 100).all()
    assert (labels[split.labelled].sum(dim=0) >= 500).all()


def test_both_parts_of_nuswide_are_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nuswide_tree(tmp_path)
    monkeypatch.setattr(nuswide, "QUERIES_PER_CONCEPT", 1)
    monkeypatch.setattr(nuswide, "LABELLED_PER_CONCEPT", 2)
    learnt = image_sets.training_set(tmp_path, "nuswide", RULES)
    searched = image_sets.retrieval_set(tmp_path, "nuswide", RULES)
    assert len(learnt.labelled) == 6
    assert len(searched.queries) == 3
    assert len(searched.database) == len(learnt.unlabelled) == 3
    unseen = image_sets.training_set(tmp_path, "nuswide-unseen-1", RULES)
    assert len(unseen.classes) == 2
    assert datasets.provenance("nuswide-unseen-1")["protocol"] == "nuswide protocol 2, draw 1"


def test_a_folder_that_is_not_nuswide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="is not NUS-WIDE"):
        nuswide.all_images(tmp_path, RULES)
    nuswide_tree(tmp_path)
    (tmp_path / "ImageList" / "Imagelist.txt").write_text("one\n")
    with pytest.raises(TrainerError, match="needs 1 lines, as many as"):
        nuswide.all_images(tmp_path, RULES)
