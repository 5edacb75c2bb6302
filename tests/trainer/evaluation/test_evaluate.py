import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from gpq.engine import engines
from gpq.model.codebook import intra_normalise
from trainer.artifacts.cut import cut
from trainer.artifacts.export import with_means
from trainer.artifacts.refit import refit
from trainer.data.image_sets import RetrievalSet, leave_one_out, spread, training_set
from trainer.data.listing import class_folders
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import _relative_distance, evaluate


def image_set(n: int = 60) -> RetrievalSet:
    pixels = np.random.default_rng(3).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    batch, labels = torch.from_numpy(pixels), one_hot(torch.arange(n) % 3)
    return RetrievalSet(batch[:12], labels[:12], batch[12:], labels[12:], ("a", "b", "c"))


def test_shorter_codes_are_measured_as_the_models_cut_to_them(
    random_model: Path, tmp_path: Path
) -> None:
    model = engines.load(random_model)
    found = evaluate(model, image_set(), bits=(24, 12, 48))
    assert [measured.bits for measured in found] == [12, 24, 48]
    for measured in found[:2]:
        cut(random_model, measured.bits, tmp_path / str(measured.bits))
        shorter = engines.load(tmp_path / str(measured.bits))
        assert shorter.bits == measured.bits
        alone = evaluate(shorter, image_set())[0]
        assert {**alone.as_dict(), "model": model.id} == measured.as_dict()


def test_refit_keeps_the_codes_and_recomputes_their_means(
    random_model: Path, sample: Path, tmp_path: Path
) -> None:
    refit(random_model, sample, "folder", tmp_path / "refitted")
    before, after = engines.load(random_model), engines.load(tmp_path / "refitted")
    images = training_set(sample, "folder", before.rules)
    labelled, unlabelled = images.labelled.numpy(), images.unlabelled.numpy()
    assert np.array_equal(before.encode(labelled), after.encode(labelled))
    wanted = before.codebook.means_of(before.features(unlabelled))
    assert np.allclose(after.codebook.means, wanted, atol=1e-5)
    assert (np.linalg.norm(after.codebook.means, axis=-1) < 0.999).any()
    x = intra_normalise(before.features(labelled), 12)
    of_dogs = images.labels[:, images.classes.index("dog")].bool().numpy()
    assert np.allclose(after.codebook.classes[:, 5], x[of_dogs].mean(axis=0), atol=1e-5)
    assert after.about["classes"] == list(images.classes)
    assert after.about["refitted_from"] == {"id": before.id}
    cut(tmp_path / "refitted", 24, tmp_path / "short")
    short = engines.load(tmp_path / "short").codebook
    assert np.array_equal(short.means, after.codebook.means[:6])
    assert np.array_equal(short.classes, after.codebook.classes[:6])
    with pytest.raises(TrainerError, match="has a model"):
        refit(random_model, sample, "folder", tmp_path / "refitted")


def test_refit_reports_the_files_it_skips(
    random_model: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sample, tmp_path / "data")
    (tmp_path / "data" / "labeled" / "dog" / "broken.jpg").write_bytes(b"not an image")
    refit(random_model, tmp_path / "data", "folder", tmp_path / "refitted")
    printed = capsys.readouterr().err
    assert "skipped 1 files" in printed and "broken.jpg" in printed


def test_refit_reads_only_the_images_it_uses(
    random_model: Path,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = engines.load(random_model)
    whole = training_set(sample, "folder", model.rules)
    rows = [spread(len(pixels), 4) for pixels in (whole.unlabelled, whole.labelled)]
    wanted = with_means(
        model.codebook,
        model.features(whole.unlabelled[rows[0]].numpy()),
        model.features(whole.labelled[rows[1]].numpy()),
        whole.labels[rows[1]].numpy(),
    )
    files = class_folders(sample / "labeled").files
    used = [files[row] for row in spread(len(files), 4).tolist()]
    shutil.copytree(sample, tmp_path / "data")
    for path in set(files).difference(used):
        (tmp_path / "data" / path.relative_to(sample)).write_bytes(b"not an image")
    monkeypatch.setattr("trainer.artifacts.refit.MAX_AVERAGED", 4)
    refit(random_model, tmp_path / "data", "folder", tmp_path / "refitted")
    assert "skipped" not in capsys.readouterr().err
    found = engines.load(tmp_path / "refitted")
    assert found.about["classes"] == list(whole.classes)
    assert np.allclose(found.codebook.means, wanted.means, atol=1e-6)
    assert np.allclose(found.codebook.classes, wanted.classes, atol=1e-6)
    for path in used:
        (tmp_path / "data" / path.relative_to(sample)).write_bytes(b"not an image")
    with pytest.raises(TrainerError, match=r"no image of airplane, .* can be read"):
        refit(random_model, tmp_path / "data", "folder", tmp_path / "refitted", overwrite=True)


def test_cut_replaces_a_model_only_if_asked(random_model: Path, tmp_path: Path) -> None:
    cut(random_model, 24, tmp_path)
    with pytest.raises(TrainerError, match="name another folder"):
        cut(random_model, 12, tmp_path)
    assert engines.load(tmp_path).bits == 24
    cut(random_model, 12, tmp_path, overwrite=True)
    assert engines.load(tmp_path).bits == 12


def test_nothing_to_search_is_a_clear_error(random_model: Path) -> None:
    one = image_set(13)
    pixels, labels = one.queries[:1], one.query_labels[:1]
    with pytest.raises(TrainerError, match="no two images share a label"):
        evaluate(engines.load(random_model), leave_one_out(pixels, labels, one.classes))


def test_images_of_one_class_are_refused(random_model: Path) -> None:
    few = image_set(16)
    everywhere = torch.zeros_like(few.database_labels)
    everywhere[:, 1] = 1
    everywhere[0, 0] = 1
    one = leave_one_out(few.database, everywhere, few.classes)
    with pytest.raises(TrainerError, match=f"are of the class {few.classes[1]}, .* any ranking"):
        evaluate(engines.load(random_model), one)


def test_images_that_are_alone_in_their_class_are_not_searched_for() -> None:
    pixels = image_set(16).database
    labels = one_hot(torch.tensor([0, 0, 1, 2]))
    assert leave_one_out(pixels, labels, ("a", "b", "c")).own_rows.tolist() == [0, 1]


def test_a_cut_models_codes_are_the_first_of_the_sources(
    random_model: Path, tmp_path: Path
) -> None:
    new_id = cut(random_model, 32, tmp_path)
    source, shorter = engines.load(random_model), engines.load(tmp_path)
    assert shorter.id == new_id != source.id
    assert shorter.about["cut_from"] == {"id": source.id, "bits": 48}
    pixels = image_set().database.numpy()
    assert (shorter.encode(pixels) == source.encode(pixels)[:, :4]).all()


def test_a_query_is_not_among_its_own_hits(random_model: Path) -> None:
    model, pixels = engines.load(random_model), image_set().database
    rows, names = torch.arange(len(pixels)), tuple(map(str, range(len(pixels))))
    own = torch.eye(len(pixels), dtype=torch.uint8)  # each image has its own class
    with_itself = RetrievalSet(pixels, own, pixels, own, names)
    alone = RetrievalSet(pixels, own, pixels, own, names, own_rows=rows)
    first, second = evaluate(model, with_itself)[0], evaluate(model, alone)[0]
    assert first.mAP > 0.2
    assert second.mAP == second.mAP_tie_aware == second.precision_at_10 == 0
    assert (first.n_database, second.n_database) == (len(pixels), len(pixels) - 1)


def test_a_hit_is_relevant_if_it_shares_a_class(random_model: Path) -> None:
    few = image_set(14)
    shared = torch.tensor([[1, 1, 0], [0, 0, 1]], dtype=torch.uint8)
    queries = torch.tensor([[0, 1, 1]], dtype=torch.uint8)
    both = RetrievalSet(few.queries[:1], queries, few.database, shared, few.classes)
    assert evaluate(engines.load(random_model), both)[0].mAP == 1
    both = RetrievalSet(few.queries[:1], queries, few.database, shared * 0, few.classes)
    assert evaluate(engines.load(random_model), both)[0].mAP == 0


@pytest.mark.parametrize("bits", [0, 10, 48, 52])
def test_lengths_that_cannot_be_cut_are_refused(
    random_model: Path, tmp_path: Path, bits: int
) -> None:
    with pytest.raises(TrainerError, match="48 bits"):
        cut(random_model, bits, tmp_path)
    if bits != 48:
        with pytest.raises(TrainerError, match="cannot be cut"):
            evaluate(engines.load(random_model), image_set(), bits=(bits,))


def test_relative_distance_is_one_if_the_order_is_independent_of_the_value() -> None:
    far = np.arange(40, dtype=np.float32)
    assert _relative_distance(far, np.zeros(40, dtype=np.float32)) == pytest.approx(1)
    assert _relative_distance(far, -far) == pytest.approx(4.5 / 19.5)
    assert _relative_distance(far[:11], -far[:11]) == pytest.approx(4.5 / 5)
    assert _relative_distance(far[:10], far[:10]) is None  # the first ten are all of them
    assert _relative_distance(far[:0], far[:0]) is None
    assert _relative_distance(far * 0, far) is None
