"""One process or many (`torchrun` starts them): who am I, which device is mine, what do we have together."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from clipseg.errors import ClipSegError

# A process that ends is noticed at once, a silent one after this time: longer than a reader may be stuck before it is an error
# of its own (`data.worker_timeout`), and than rank 0 takes for a report while the others wait.
SILENCE = timedelta(minutes=15)


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

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's `value`, a tensor on the run's device or the CPU, on every process."""
        if self.world_size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def batch_weight(self, count: int, device: torch.device) -> Tensor:
        """The weight that makes the mean over processes of per-process means over `count` samples the mean over all samples."""
        own = torch.full((), count, device=device)  # filled there: a copy would wait for the device
        return own * self.world_size / self.sum(own)

    def gather_lists(self, values: list[Any]) -> list[Any]:
        """The lists of all processes in one, on every process."""
        return [value for part in self.gather(values) for value in part]

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. Asked of the processes alone, by gloo, so that in every step no GPU waits."""
        return flag if self.world_size == 1 else bool(self.sum(torch.tensor(int(flag))))

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`, on every process."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@contextlib.contextmanager
def started(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` started (NCCL on GPUs, gloo on CPUs), and leave them at the end.

    Raises:
        ClipSegError: another process ended before its time, or was silent for `SILENCE`.
    """
    world_size = _world_size()
    if world_size == 1:
        yield Processes()
        return
    on_gpu = device.type == "cuda"
    try:
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, timeout=SILENCE, device_id=device if on_gpu else None)
        yield Processes(rank=dist.get_rank(), world_size=world_size)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise ClipSegError(
            "another process of this run has ended or is stuck; start all of them again (train.py: with resume=auto)"
        ) from error
    # Not after an error: then the connections break when this process ends, so that the others learn of it only after the entry
    # has said what happened.
    dist.destroy_process_group()


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo's errors are plain RuntimeErrors that name the source file they come from.
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def averaging_gradients(module: nn.Module) -> DistributedDataParallel:
    """`module`, whose gradients become the mean over all processes in every backward pass."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            # A convolution's gradient has whatever strides its kernel likes; the weight's own save a copy and a warning.
            parameter.register_hook(lambda gradient: gradient.flatten().unflatten(0, gradient.shape))
    return DistributedDataParallel(module)


def claim_error_report() -> bool:
    """Whether no process of this run has told the user of an error yet; to ask is to tell.

    One error ends all processes, each in its own way: the first word is the cause, the others would only bury it.
    """
    if _world_size() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        # `torchrun` itself keeps this store, so that it is there before the processes have met and after some have ended.
        store, *_ = next(rendezvous("env://", timeout=timedelta(seconds=10)))
        return store.add("clipseg/errors", 1) == 1
    except RuntimeError:
        return True


def choose_device(name: str) -> torch.device:
    """The device a config names: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps" ...

    Under `torchrun`, "auto" and "cuda" mean the GPU of the local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda:") and _world_size() > 1:
        raise ClipSegError(f"device={name} is one GPU for {_world_size()} processes; use device=cuda: each takes its own")
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
        torch.backends.cudnn.allow_tf32 = False  # by default convolutions in float32 round what they read to 10 bits
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for each number of texts and of prompt images
    return device
