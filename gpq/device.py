"""Where to compute."""

import torch

from gpq.errors import DeviceError

NAMES = ("auto", "cpu", "cuda")


def pick(name: str) -> torch.device:
    """auto, cpu or cuda; raises DeviceError where the device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("cuda: torch sees no CUDA device; use cpu or auto")
    return torch.device(name)
