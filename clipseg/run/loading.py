"""Items -> batches, through worker processes, with errors that arrive as one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from clipseg.data.mini import materialize
from clipseg.data.mini_layouts import materialize_layout
from clipseg.data.sample import Batch, Reader, collate
from clipseg.data.sampling import StreamSampler, shard
from clipseg.errors import ClipSegError
from clipseg.run.distributed import Processes

# Nothing a worker does takes long; one that is silent for this long is stuck (a hung network mount, for example).
WORKER_TIMEOUT_SECONDS = 300


def data_root(root: str, layout: str = "phrasecut") -> Path:
    """The folder a config's `data.root` means; "mini" is the data set that draws itself, into a cache folder.

    Args:
        root: the key's value.
        layout: in which it is drawn, one of `data/layout.py`.
    """
    if root != "mini":
        return Path(root).expanduser()
    return materialize() if layout == "phrasecut" else materialize_layout(layout)


def training_batches(
    data: Reader, *, batch_size: int, processes: Processes, start: int, workers: int, device: torch.device
) -> Iterator[Batch]:
    """This process's batches from step `start` on, without end; `batch_size` counts items over all processes."""
    sampler = StreamSampler(len(data), batch_size=batch_size, rank=processes.rank, world_size=processes.world_size, start=start)
    return _batches(data, sampler, workers, device)


def evaluation_batches(
    data: Reader, items: Sequence[int], *, processes: Processes, workers: int, device: torch.device
) -> Iterator[Batch]:
    """This process's share of `items`, one image a batch: what it gets does not depend on its neighbours."""
    own = [[(0, items[position])] for position in shard(len(items), processes.rank, processes.world_size)]
    return _batches(data, own, workers, device)


def _batches(data: Reader, batch_sampler: Any, workers: int, device: torch.device) -> Iterator[Batch]:
    loader = DataLoader(
        _Guarded(data),
        batch_sampler=batch_sampler,
        num_workers=workers,
        collate_fn=_collate_or_error,
        pin_memory=device.type == "cuda",
        timeout=WORKER_TIMEOUT_SECONDS if workers else 0,
    )
    try:
        for batch in loader:
            if isinstance(batch, ClipSegError):
                raise batch
            yield batch.to(device)
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise ClipSegError(
            f"reading data failed: {str(error).splitlines()[0]}; data.workers=0 reads in the main process"
        ) from error


class _Guarded(Dataset[Any]):
    """Hands an expected error over as a value: raised in a worker it would arrive as a traceback in a string."""

    def __init__(self, data: Reader):
        self.data = data

    def __getitem__(self, index: tuple[int, int]) -> Any:
        try:
            return self.data[index]
        except ClipSegError as error:
            return error


def _collate_or_error(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, ClipSegError)), None) or collate(items)
