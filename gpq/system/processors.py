"""How many processors there are for this process."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of each period, or max


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
