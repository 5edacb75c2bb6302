import json
from pathlib import Path

import pytest

from bench.curves import main, read


def log(path: Path, *checks: tuple[int, float, float]) -> Path:
    lines = [{"step": 1, "seconds": 0.5, "npair": 3.0}]
    lines += [{"step": step, "seconds": s, "held_out_mAP": mAP} for step, s, mAP in checks]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "sec')
    return path


def test_measurements_of_trainings_are_drawn_and_written(tmp_path: Path) -> None:
    first = log(tmp_path / "first.jsonl", (10, 1.0, 0.2), (20, 2.0, 0.5), (20, 2.5, 0.4))
    second = log(tmp_path / "second.jsonl", (10, 3.0, 0.1), (20, 6.0, 0.19), (30, 9.0, 0.2))
    out, drawn = tmp_path / "curves.json", tmp_path / "training.png"
    main([f"ours={first}", f"theirs={second}", "--out", str(out), "--drawn", str(drawn)])
    ours, theirs = json.loads(out.read_text())["runs"]
    assert ours["checks"][-1] == {"step": 20, "seconds": 2.5, "mAP": 0.4}  # the later of two lines
    assert theirs["name"] == "theirs" and theirs["best"] == 0.2
    assert theirs["seconds_to_share"] == {"50%": 3.0, "80%": 6.0, "90%": 6.0, "95%": 6.0}
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert read("x", second).seconds_to(0.3) is None


def test_a_log_without_checks_is_a_clear_error(tmp_path: Path, capsys) -> None:
    for words in ([f"a={log(tmp_path / 'a')}"], ["a=/nowhere"], ["a"]):
        with pytest.raises(SystemExit):
            main([*words, "--out", str(tmp_path / "x"), "--drawn", str(tmp_path / "y")])
    printed = capsys.readouterr().err
    assert "train with --held-out" in printed
    assert "/nowhere" in printed and "a: expected NAME=log.jsonl" in printed
