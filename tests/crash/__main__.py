"""The command ``python -m tests.crash``, see ``tests.crash.rounds``."""

import argparse
import json
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from harness.models import make_artifact
from harness.postgres import Postgres
from tests.crash.rounds import Rounds


def main() -> int:
    parser = argparse.ArgumentParser(
        description="kill the service at random moments and check that no write is lost"
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpq-crash-")))
        model = folder / "model"
        make_artifact(model)
        url = f"sqlite:///{folder}/gpq.db"
        if arguments.database == "postgres":
            url = stack.enter_context(Postgres()).create_database()
        tally = Rounds(folder, model, url, arguments.seed).run(arguments.rounds)
    named = {"database": arguments.database, "seed": arguments.seed}
    print(json.dumps(named | tally.report(), indent=2))
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
