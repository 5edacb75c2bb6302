"""A network whose convolutions are the kernel's."""

import ctypes
import weakref

import torch
from torch import Tensor, nn

from gpq.winograd import library
from gpq.winograd.plan import COLOURS, Plan


class WinogradNetwork(nn.Module):
    """(B,3,side,side) float32 on the CPU -> (B,D) float32, for inference; on as many threads as
    torch uses. What comes of a picture does not depend on the others of its batch.

    instructions: avx512 or avx2, or the fastest there is. Raises MemoryError.
    """

    def __init__(self, plan: Plan, instructions: str = "") -> None:
        super().__init__()
        self.side, self.made = plan.maps[0].side, plan.made
        self.kept = [*(step.tensors for step in plan.steps), plan.last]  # the kernel reads them
        maps = [library.Map(map.side, map.channels) for map in plan.maps]
        steps = []
        for step in plan.steps:
            addresses = [tensor.data_ptr() for tensor in step.tensors]
            steps.append(
                library.Step(step.kind, step.source, step.to, step.plus, step.pool, *addresses)
            )
        last = library.Last(plan.features, plan.made, *(part.data_ptr() for part in plan.last))
        self.kernel = library.kernel()
        self.handle = self.kernel.gpq_network(
            (library.Map * len(maps))(*maps), len(maps),
            (library.Step * len(steps))(*steps), len(steps),
            COLOURS, ctypes.byref(last), instructions.encode(),
        )  # fmt: skip
        if not self.handle:
            raise MemoryError("no memory for a network")
        free = weakref.finalize(self, self.kernel.gpq_network_free, self.handle)
        free.atexit = False  # at the end of the process a thread may still be in it

    def forward(self, images: Tensor) -> Tensor:
        """Raises ValueError for images of another shape, MemoryError."""
        count = len(images)
        if images.shape[1:] != (COLOURS, self.side, self.side):
            raise ValueError(f"images of shape {tuple(images.shape)}, not of side {self.side}")
        pixels = images.permute(0, 2, 3, 1).to(torch.float32).contiguous()
        out = torch.empty(count, self.made)
        if count and self.kernel.gpq_network_run(
            self.handle, pixels.data_ptr(), count, out.data_ptr(), torch.get_num_threads()
        ):
            raise MemoryError(f"no memory for {count} pictures")
        return out
