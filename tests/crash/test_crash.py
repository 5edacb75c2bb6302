from pathlib import Path

from tests.crash.rounds import Rounds

ROUNDS = 5


def test_killed_at_random_points(random_model: Path, database_url: str, tmp_path: Path) -> None:
    tally = Rounds(tmp_path, random_model, database_url, seed=1).run(ROUNDS)
    assert tally.clean, tally.report()
    assert tally.rounds == ROUNDS
    assert min(tally.acknowledged[method] for method in ("POST", "DELETE")) > 10
