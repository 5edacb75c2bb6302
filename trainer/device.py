"""What a device can do, and what it is called."""

import os
import platform
from contextlib import AbstractContextManager

import torch

from trainer.errors import TrainerError

Autocast = AbstractContextManager[None]
FREE_SHARE = 0.5  # of a card's free memory that pictures may take; the steps need the rest


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 arithmetic is in the hardware, not emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device) -> Autocast:
    """Mixed precision for the network where the device has it, else a no-op."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))


def has_room(size: int, device: torch.device) -> bool:
    """True where ``size`` bytes of pictures may lie there; the CPU's memory is where they are."""
    if device.type != "cuda":
        return True
    return size <= FREE_SHARE * torch.cuda.mem_get_info(device)[0]


def require_backend(name: str, device: torch.device) -> None:
    """Raises TrainerError where torch.compile cannot do the least with the back end ``name``."""
    try:
        torch.compile(torch.neg, backend=name)(torch.ones(2, device=device))
    except Exception as error:  # back ends raise what they like, a missing compiler among it
        reason = " ".join(str(error).split("\n")[:2])
        known = ", ".join(torch.compiler.list_backends())
        raise TrainerError(f"--compile {name}: {reason}; there are {known}") from error


def describe(device: torch.device) -> str:
    """The hardware in words, for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} {platform.machine()} CPUs, {torch.get_num_threads()} threads"
