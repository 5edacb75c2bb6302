"""Where to compute, and in which precision."""

import os
import platform
from contextlib import AbstractContextManager

import torch

from trainer.errors import TrainerError

NAMES = ("auto", "cpu", "cuda")


def pick(name: str) -> torch.device:
    """auto, cpu or cuda; raises TrainerError where the device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainerError("--device cuda: torch sees no CUDA device; use --device cpu or auto")
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 arithmetic is in the hardware, not emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision for the network where the device has it, else a no-op."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))


def describe(device: torch.device) -> str:
    """The hardware in words, for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} {platform.machine()} CPUs, {torch.get_num_threads()} threads"
