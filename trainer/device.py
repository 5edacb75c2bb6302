"""What a device supports, and its name."""

import os
import platform
from contextlib import AbstractContextManager

import torch

from gpq.engine.torch_architectures import EFFICIENTNETS
from trainer.errors import TrainerError

Autocast = AbstractContextManager[None]
FREE_SHARE = 0.5  # of a GPU's free memory that images may take; the steps need the rest


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the hardware computes in bfloat16, without emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, network: str = "") -> Autocast:
    """Mixed precision for a network if the hardware computes in bfloat16, else a no-op.

    On a CPU, the gradients of depthwise convolutions take longer in bfloat16 than in float32.
    """
    faster = device.type != "cpu" or network not in EFFICIENTNETS
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=faster and has_bfloat16(device)
    )


def has_room(size: int, device: torch.device) -> bool:
    """Returns whether ``size`` bytes of images may be moved to the device.

    They are in the CPU's memory already, so for the CPU the answer is always true.
    """
    if device.type != "cuda":
        return True
    return size <= FREE_SHARE * torch.cuda.mem_get_info(device)[0]


def require_backend(name: str, device: torch.device) -> None:
    """Raises TrainerError if torch.compile cannot use the back end ``name`` at all."""
    try:
        torch.compile(torch.neg, backend=name)(torch.ones(2, device=device))
    except Exception as error:  # back ends raise many kinds, for instance without a compiler
        reason = " ".join(str(error).split("\n")[:2])
        known = ", ".join(torch.compiler.list_backends())
        raise TrainerError(f"--compile {name}: {reason}; known back ends: {known}") from error


def describe(device: torch.device) -> str:
    """Returns a description of the hardware for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} {platform.machine()} CPUs, {torch.get_num_threads()} threads"
