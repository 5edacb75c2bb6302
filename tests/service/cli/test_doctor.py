import os
from pathlib import Path

import pytest

from harness import commands
from harness.images import png
from harness.server import Server
from service.cli.doctor import rights

CHECKS = [
    "settings", "rights", "database", "clock", "image store", "disk", "decoding", "model",
    "scan engine", "feed", "search",
]  # fmt: skip


def checked(printed: str) -> dict[str, str]:
    """Returns whether each check succeeded, by its name."""
    lines = [line.split(maxsplit=1) for line in printed.splitlines()[:-1]]
    return {rest.partition(":")[0]: word for word, rest in lines}


def test_a_new_installation_is_checked_and_left_alone(random_model: Path, tmp_path: Path) -> None:
    done = commands.run("doctor", folder=tmp_path, model=random_model)
    assert done.returncode == 0, done.stdout
    assert list(checked(done.stdout)) == CHECKS
    assert done.stdout.endswith("all checks passed\n")
    assert list(tmp_path.iterdir()) == []


def test_a_running_service_is_checked_with_its_images(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        server.index(png(1), png(2))
        before = sorted(tmp_path.rglob("*.*"))
        done = commands.run("doctor", folder=tmp_path, model=random_model)
        assert done.returncode == 0, done.stdout
        assert "holds 2 images" in done.stdout and "2 hits among 2 codes" in done.stdout
        assert "1 running processes follow it" in done.stdout
        assert sorted(tmp_path.rglob("*.*")) == before


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("CapEff:\t0000000000000000\nNoNewPrivs:\t1\n", "no capabilities and cannot gain"),
        ("CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\n", "14 capabilities and can gain"),
        ("CapEff:\t0000000000000001\nSeccomp:\t2\n", "system calls are filtered"),
        ("CapEff:\t0000000000000001\nSeccomp:\t0\n", "system calls are not filtered"),
        ("", "runs as"),
    ],
)
def test_the_rights_of_the_process_are_told(tmp_path: Path, status: str, said: str) -> None:
    (tmp_path / "status").write_text(status)
    assert said in rights(tmp_path / "status")
    assert "the root folder is" in rights(tmp_path / "missing")


@pytest.mark.parametrize(
    ("settings", "failing", "why"),
    [
        ({"database_url": "postgresql://nobody@127.0.0.1:1/x"}, "database", "127.0.0.1"),
        ({"model": "/nowhere"}, "model", "/nowhere"),
        ({"image_store": "s3://bucket-that-is-not/there"}, "image store", ""),
        ({"engine": "onnxruntime", "model": "/nowhere"}, "model", "/nowhere"),
    ],
)
def test_a_part_that_does_not_work_is_named(
    settings: dict, failing: str, why: str, random_model: Path, tmp_path: Path
) -> None:
    variables = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x"}
    os.environ.update(variables)
    try:
        done = commands.run("doctor", folder=tmp_path, **{"model": random_model, **settings})
    finally:
        for name in variables:
            del os.environ[name]
    assert done.returncode == 1, done.stdout
    assert checked(done.stdout)[failing] == "FAILED"
    (line,) = [line for line in done.stdout.splitlines() if f"{failing}:" in line]
    assert why in line
    assert "checks failed" in done.stdout and "Traceback" not in done.stderr
