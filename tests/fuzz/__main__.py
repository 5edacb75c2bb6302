"""The command ``python -m tests.fuzz``: damages input until the time is over.

It ends with status 1, and keeps the input in runs/fuzz, when a target raises.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import Target, targets

KEPT = ROOT / "runs" / "fuzz"


def fuzz(name: str, target: Target, seconds: float, seed: int) -> tuple[int, float]:
    """Returns how many inputs were tried, and the seconds of the slowest.

    Raises what the target raises, after it has written the input to ``KEPT``.
    """
    numbers, tried, slowest = random.Random(seed), 0, 0.0
    with tempfile.TemporaryDirectory() as folder, target.opened(Path(folder)) as call:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            data = mutated(numbers, target.seeds)
            began = time.monotonic()
            try:
                call(data)
            except BaseException:
                KEPT.mkdir(parents=True, exist_ok=True)
                (KEPT / f"{name}-{seed}-{tried}").write_bytes(data)
                raise
            tried, slowest = tried + 1, max(slowest, time.monotonic() - began)
    return tried, slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = targets()
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--only", choices=known, help="one target")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    logging.disable()
    picked = {name: each for name, each in known.items() if options.only in (None, name)}
    failed = 0
    for name, target in picked.items():
        try:
            tried, slowest = fuzz(name, target, options.seconds / len(picked), options.seed)
            print(f"{name}: {tried:,} inputs, the slowest took {slowest:.2f} s", flush=True)
        except Exception as error:
            failed = 1
            print(f"{name}: {type(error).__name__}: {error}; see {KEPT}, seed {options.seed}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
