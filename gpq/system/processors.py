"""Counts the processors that this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")  # a container's quota and period in microseconds


def processors(quota: Path = CGROUP) -> int:
    """Returns the number of processors that this process may use.

    CPU affinity and the quota of a container limit it.
    """
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        mine = os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        return max(1, min(mine, math.ceil(int(share) / int(period))))
    except (OSError, ValueError):  # not in a container, or in one without a limit
        return mine
