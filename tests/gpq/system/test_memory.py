import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from gpq.system import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
work = lambda: torch.ones(16 << 20).sum()
for _ in range(20):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    def faults(which: str) -> int:
        command = [sys.executable, "-c", FAULTS, which]
        return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    assert faults("kept") < 100
    assert faults("returned") > 1000  # 64 MiB are mapped again in each of five steps
