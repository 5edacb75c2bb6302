"""How many threads there are for decoding and for the network.

Both may have every processor: the stages of one request follow on each other, and either can be
what takes the time. Scans are short; their engine has its own limit.
"""

import os

from gpq.system.processors import processors

MOST_DECODING = 4  # each may hold a large picture
SPINS = "1000"  # some microseconds


def spin_little() -> None:
    """Have OpenMP's threads sleep where they wait for each other, unless the environment says
    how; before torch is imported. By default they spin for milliseconds, and where anything
    else wants the processors that can take ten times the time of the work.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def decoding() -> int:
    return min(MOST_DECODING, processors())
