"""One process or many (`torchrun` starts them): who am I, which device is mine, what do we have together."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from clipseg.errors import ClipSegError


@dataclass(frozen=True)
class Processes:
    """The processes of this run; one where nobody started more. Rank 0 writes all files."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, in the order of ranks, on every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def share(self, count: int) -> float:
        """The weight that makes the mean over processes of per-process means over `count` samples the mean over all samples."""
        if self.world_size == 1:
            return 1.0
        return count * self.world_size / sum(self.gather(count))

    def from_main(self, value: Any) -> Any:
        """Rank 0's `value`, on every process."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@contextlib.contextmanager
def started(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` started (NCCL on GPUs, gloo on CPUs), and leave them at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank=dist.get_rank(), world_size=world_size)
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device a config names: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps" ...

    Under `torchrun`, "auto" and "cuda" mean the GPU of the local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ClipSegError(
            f"device={name} cannot be used here ({str(error).splitlines()[0]}); use device=cpu or device=auto"
        ) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
