"""Trains one model in several processes, which torchrun starts.

    torchrun --nproc-per-node 2 -m trainer train …

Each process computes the features of its share of a batch. All processes draw the same rows and
views and compute the same losses over the whole batch, and batch norm uses the statistics of the
whole batch. A run of n processes therefore equals a run of one, with the network's work divided
by n. Two things differ: rounding, because sums are in another order, and dropout (``alexnet``,
``cnn-f``), which each process draws for its share.
"""

import os

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as with_gradient
from torch import Tensor, nn


def requested_processes() -> int:
    """Returns how many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def start(device: torch.device) -> torch.device:
    """Joins the run that torchrun started, if any; returns the device of this process."""
    if requested_processes() == 1:
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
    """Returns whether this is the process that prints and writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share(batch: Tensor) -> Tensor:
    """Returns this process's part of a batch whose length is a multiple of ``world()``.

    A batch has its labelled images before its unlabelled ones. The part takes every n-th row, so
    that all processes have equally many images of either kind.
    """
    return batch if world() == 1 else batch[dist.get_rank() :: world()]


def gather(part: Tensor) -> Tensor:
    """Joins the parts of all processes to the batch; the gradient flows back to each of them."""
    if world() == 1:
        return part
    parts = with_gradient.all_gather(part.contiguous())  # type: ignore[no-untyped-call]
    return torch.stack(parts, dim=1).flatten(0, 1)


def average_gradients(model: nn.Module) -> None:
    """Replaces gradients by their mean over processes, which is that of the whole batch.

    Every process has computed the losses of the whole batch.
    """
    if world() == 1:
        return
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world()


def copy_from_first(model: nn.Module) -> None:
    """Gives the model of each process the tensors of the first process's model."""
    if world() == 1:
        return
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)


def value_of_first(value: float) -> float:
    """Returns the first process's value; in the others it may differ by rounding."""
    if world() == 1:
        return value
    values: list[float] = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def in_any_process(flag: bool) -> bool:
    """Returns whether ``flag`` is true in any process."""
    if world() == 1:
        return flag
    flags: list[bool | None] = [None] * world()
    dist.all_gather_object(flags, flag)
    return any(flags)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Returns the model with batch norm that uses the statistics of the whole batch."""
    if world() == 1:
        return model
    if next(model.parameters()).device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return synchronised
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                shared = _BatchNorm(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)
    return model


class _BatchNorm(nn.BatchNorm2d):
    """Does what nn.SyncBatchNorm does, which does not run on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        mean = _mean(wide)
        centred = wide - mean
        variance = _mean(centred**2)
        count = x.numel() // x.shape[1] * world()
        self._remember(mean.detach().flatten(), variance.detach().flatten() * count / (count - 1))
        scale = self.weight[:, None, None] * torch.rsqrt(variance + self.eps)
        return (centred * scale + self.bias[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def _mean(x: Tensor) -> Tensor:
    """(B,C,H,W), a share of the batch -> (1,C,1,1), the mean of the whole batch."""
    own = x.mean(dim=(0, 2, 3), keepdim=True)
    total: Tensor = with_gradient.all_reduce(own)  # type: ignore[no-untyped-call]
    return total / world()
