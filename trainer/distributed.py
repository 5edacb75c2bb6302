"""Several processes of one run, started by torchrun: each computes its share of the features.

    torchrun --nproc-per-node 2 -m trainer train …

All draw the same rows and views and compute the same losses over the whole batch, so that a
run of n processes is a run of one with its network's work divided by n. What differs is
batch norm on the CPU, where each process has the statistics of its share.
"""

import os

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as with_gradient
from torch import Tensor, nn


def asked_for() -> int:
    """How many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start(device: torch.device) -> torch.device:
    """Join the run that torchrun started, if any; the device that is this process's."""
    if asked_for() == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """True in the process that prints and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch: Tensor) -> Tensor:
    """This process's part of a batch whose length is a multiple of ``world()``."""
    return batch if world() == 1 else batch.chunk(world())[dist.get_rank()]


def gather(part: Tensor) -> Tensor:
    """All processes' parts in order; the gradient flows back to each."""
    if world() == 1:
        return part
    return torch.cat(with_gradient.all_gather(part.contiguous()))  # type: ignore[no-untyped-call]


def average_gradients(model: nn.Module) -> None:
    """The mean over processes: that of the whole batch, for each computed all losses."""
    if world() == 1:
        return
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()


def of_first(value: float) -> float:
    """The first process's value: batch norm may have given the others another one."""
    if world() == 1:
        return value
    values: list[float] = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def anywhere(flag: bool) -> bool:
    """True where it is true in any process."""
    if world() == 1:
        return flag
    flags: list[bool | None] = [None] * world()
    dist.all_gather_object(flags, flag)
    return any(flags)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Statistics of the whole batch, where the device can."""
    if world() == 1 or next(model.parameters()).device.type != "cuda":
        return model
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synchronised
