"""Configures how OpenMP's threads wait for each other."""

import os

SPINS = "1000"  # some microseconds


def spin_briefly() -> None:
    """Makes OpenMP's threads sleep while they wait, unless the environment already says how.

    Call it before torch is imported. By default the threads spin for milliseconds, which can
    slow the work down tenfold when other threads need the processors.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
