import hashlib
import json
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpq.pixels.preprocess import Preprocess
from tests.trainer.recipes.test_recipe import config, image_set, recipe
from trainer.components.model import GPQ
from trainer.data.image_sets import SUM_BATCH, TrainingSet
from trainer.errors import TrainerError
from trainer.evaluation.holdout import HeldOut
from trainer.recipes.batches import Batch
from trainer.recipes.modern import Modern
from trainer.training import best, checkpoint, loop
from trainer.training.best import PATIENCE

CPU = torch.device("cpu")


def run(
    out: Path, held_out: HeldOut | None = None, resume: bool = False, **more: object
) -> loop.TrainingResult:
    wanted = config("modern", **more)
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = GPQ(wanted, 3)
    saved = checkpoint.read(out, wanted) if resume else None
    return loop.run(model, image_set(), held_out, Preprocess(32), wanted, out, CPU, saved)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    taken: list[int] = []
    losses = Modern.losses

    def limited(recipe: Modern, batch: Batch) -> object:
        if recipe.labelled.batch > 8:
            raise error
        taken.append(recipe.labelled.batch)
        return losses(recipe, batch)

    monkeypatch.setattr(Modern, "losses", limited)
    result = run(tmp_path, steps=3, batch_labelled=32, batch_unlabelled=16)
    assert taken == [8, 8, 8]
    assert result.steps == 3
    assert "continuing with 8 labelled and 4 unlabelled" in capsys.readouterr().err
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["recipe"]["batches"].tolist() == [8, 4]
    assert result.batches == (8, 4)


def test_out_of_memory_of_the_optimiser_halves_the_batch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = torch.optim.AdamW.step, iter([True])

    def limited(adam: torch.optim.AdamW, *arguments: object) -> object:
        if next(calls, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(adam, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", limited)
    result = run(tmp_path, steps=2, batch_labelled=16, batch_unlabelled=16)
    assert (result.steps, result.batches) == (2, (8, 8))


def test_no_memory_for_the_smallest_batch_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(recipe: Modern, batch: Batch) -> object:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Modern, "losses", never)
    with pytest.raises(TrainerError, match="give a smaller --size or --width"):
        run(tmp_path, steps=3, batch_labelled=32, batch_unlabelled=32)


def test_images_are_embedded_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made, whole = recipe("modern"), image_set().labelled
    expected, network = made.embed(whole), made._network

    def limited(model: GPQ, views: torch.Tensor) -> torch.Tensor:
        if len(views) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(model, views)

    monkeypatch.setattr(made, "_network", limited)
    made.embed_batch = len(whole)
    assert torch.allclose(made.embed(whole), expected, atol=0.05)
    assert made.embed_batch == 3


def test_other_runtime_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(recipe: Modern, batch: Batch) -> object:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Modern, "losses", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(tmp_path, steps=3)


def test_a_run_that_stops_improving_ends_early_with_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    found = iter([0.1, 0.3, 0.6, *[0.5] * PATIENCE])
    monkeypatch.setattr(loop, "_search_held_out", lambda recipe, held_out: next(found))
    monkeypatch.setattr(best, "MIN_HELD_OUT", 12)
    held = HeldOut(image_set().labelled, image_set().labels)
    result = run(tmp_path, held, steps=40)
    assert result.steps == 4 + 2 * PATIENCE
    assert result.held_out == {"pictures": 12, "mAP": 0.6, "step": 4, "start": 0.1}
    assert "stopped early" in capsys.readouterr().err
    again = run(tmp_path, held, resume=True, steps=40)
    assert (again.steps, again.held_out) == (result.steps, result.held_out)
    assert torch.equal(again.model.Z, result.model.Z)


def test_a_checkpoint_of_other_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, steps=3)
    monkeypatch.setattr(TrainingSet, "fingerprint", "other")
    with pytest.raises(TrainerError, match="images or labels differ from the checkpoint's"):
        run(tmp_path, resume=True, steps=3)


def test_fingerprint_is_of_images_labels_and_classes() -> None:
    first = image_set()
    assert first.fingerprint == image_set().fingerprint
    others = [
        replace(first, labels=first.labels.flip(0)),
        replace(first, classes=("a", "b", "d")),
        replace(first, unlabelled=first.unlabelled[1:]),
        replace(first, labelled=first.labelled.flip(0)),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5


class Sums(TorchDispatchMode):
    """Records the largest number of elements that one sum adds."""

    most = 0

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if op is torch.ops.aten.sum.dim_IntList:
            self.most = max(self.most, args[0].numel())
        return op(*args, **(kwargs or {}))


def test_fingerprint_sums_a_few_images_at_a_time_and_is_computed_once() -> None:
    """A sum in int64 makes a copy of the uint8 pixels that is eight times as large."""
    generator = torch.Generator().manual_seed(0)
    labelled, unlabelled = (
        torch.randint(256, (n, 3, 4, 4), dtype=torch.uint8, generator=generator)
        for n in (3, 2 * SUM_BATCH + 1)
    )
    whole = replace(image_set(), labelled=labelled, unlabelled=unlabelled)
    digest = hashlib.sha256(repr(whole.classes).encode())
    digest.update(whole.labels.numpy().tobytes())
    for pixels in (labelled, unlabelled):
        digest.update(pixels.long().sum(dim=(1, 2, 3)).numpy().tobytes())
    with Sums() as sums:
        assert whole.fingerprint == digest.hexdigest()
    assert sums.most == SUM_BATCH * 3 * 4 * 4
    with Sums() as sums:
        assert whole.fingerprint == digest.hexdigest()
    assert sums.most == 0


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"the loss is nan at step 2.* smaller --learning-rate"):
        run(tmp_path, steps=2, learning_rate=1e30)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_full_disk_is_a_clear_error_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, steps=3)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
        with pytest.raises(TrainerError, match=r"checkpoint\.pt cannot be written: is the disk"):
            run(tmp_path, steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainerError, match=r"log\.jsonl cannot be written: .*No space left"):
        run(tmp_path, steps=1)


def test_a_compiled_run_learns_the_same(tmp_path: Path) -> None:
    """Uses a back end without a compiler. The checkpoint has the same names as one without it."""
    plain = run(tmp_path / "plain", steps=2)
    compiled = run(tmp_path / "compiled", steps=2, compile="aot_eager")
    assert torch.allclose(plain.model.Z, compiled.model.Z, atol=1e-4)
    names = [torch.load(tmp_path / run / "checkpoint.pt")["model"].keys() for run in
             ("plain", "compiled")]  # fmt: skip
    assert names[0] == names[1]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, steps=3)
    again = run(tmp_path, resume=True, steps=3)
    assert again.steps == 3
    assert torch.equal(again.model.Z, first.model.Z)


def test_held_out_images_are_searched_before_and_during_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = HeldOut(image_set().labelled, image_set().labels)
    result = run(tmp_path, held, steps=40)
    assert 0 < result.held_out["mAP"] <= 1
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert sum("held_out_mAP" in line for line in lines) == 1 + result.steps // 2
    first = json.loads(lines[0])
    assert (first["step"], first["held_out_mAP"]) == (0, result.held_out["start"])
    latest = json.loads(lines[-1])["held_out_mAP"]
    assert f"mAP={first['held_out_mAP']:.3f}→{latest:.3f}" in capsys.readouterr().err


def test_a_log_continues_after_the_steps_that_are_done(tmp_path: Path) -> None:
    """Steps that were logged after the checkpoint are not in the log twice."""
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 6)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"step": 6, "lo']))
    loop._log(tmp_path, 3)({"step": 4})
    logged = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [1, 2, 3, 4]
    loop._log(tmp_path, 0)({"step": 1})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1}\n'
