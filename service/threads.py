"""How many threads there are for decoding and for the network.

Both may have every processor: the stages of one request follow on each other, and either can be
what takes the time. Scans are short; their engine has its own limit.
"""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of each period, or max
MOST_DECODING = 4  # each may hold a large picture
SPINS = "1000"  # some microseconds


def processors(quota: Path = CGROUP) -> int:
    """That this process may use: fewer than there are by affinity, or in a container."""
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        mine = os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        return max(1, min(mine, math.ceil(int(share) / int(period))))
    except (OSError, ValueError):  # no container, or one without a limit
        return mine


def spin_little() -> None:
    """Have OpenMP's threads sleep where they wait for each other, unless the environment says
    how; before torch is imported. By default they spin for milliseconds, and where anything
    else wants the processors that can take ten times the time of the work.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def decoding() -> int:
    return min(MOST_DECODING, processors())
