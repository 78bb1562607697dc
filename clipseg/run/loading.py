"""Items -> batches, through worker processes; what cannot be read ends the run by one line, or is named and left out."""

import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from clipseg.data.sample import Batch, Reader, Sample, collate
from clipseg.data.sampling import StreamSampler, shard
from clipseg.errors import ClipSegError
from clipseg.run.distributed import Processes
from clipseg.run.settings import LoaderSettings
from clipseg.run.workers import begin_worker, from_workers

# Items that cannot be read are left out one by one; so many in a row mean that the data are gone.
MOST_IN_A_ROW = 16
IN_PROCESS = LoaderSettings(workers=0)


def data_root(root: str, layout: str = "phrasecut") -> Path:
    """The folder a config's `data.root` means; "mini" is the synthetic data, into a cache folder.

    Args:
        root: the key's value.
        layout: in which it is drawn, one of `data/layout.py`.
    """
    if root != "mini":
        return Path(root).expanduser()
    from clipseg.data.mini.layouts import materialize_layout
    from clipseg.data.mini.phrasecut import materialize

    return materialize() if layout == "phrasecut" else materialize_layout(layout)


def training_batches(
    data: Reader,
    *,
    batch_size: int,
    processes: Processes,
    start: int,
    loader: LoaderSettings,
    left_out: list[str],
    device: torch.device,
) -> Generator[Batch, None, None]:
    """This process's batches from step `start` on, without end.

    Args:
        batch_size: items, over all processes. In the place of one that is left out comes the next that can be read.
        loader: by how many workers, and what becomes of an item that cannot be read.
        left_out: gets a line for each such item.
    """
    sampler = StreamSampler(len(data), batch_size=batch_size, rank=processes.rank, world_size=processes.world_size, start=start)
    tries = MOST_IN_A_ROW if loader.unreadable == "leave_out" else 1
    for read in _read(_Lenient(data, tries), sampler, loader, device):
        if read.failed:
            raise read.failed
        assert read.batch is not None
        _note(read.errors, left_out)
        yield read.batch


def evaluation_batches(
    data: Reader,
    items: Sequence[int],
    *,
    processes: Processes,
    loader: LoaderSettings,
    left_out: list[str],
    device: torch.device,
) -> Iterator[Batch]:
    """This process's share of `items`, one image a batch: what it gets does not depend on its neighbours.

    Args:
        loader: by how many workers, and what becomes of an image that cannot be read.
        left_out: gets a line for each such image.
    """
    own = [[(0, items[position])] for position in shard(len(items), processes.rank, processes.world_size)]
    reads = _read(_Lenient(data, 1), own, loader, device)
    return _readable((read.failed or read.batch for read in reads), loader, left_out)


def read_each(data: Any, items: Iterable[int], *, loader: LoaderSettings, left_out: list[str]) -> Iterator[Any]:
    """`data[item]` one by one, in this process, for what is no `Reader`; arguments as in `evaluation_batches`."""

    def reads() -> Iterator[Any]:
        for item in items:
            try:
                yield data[item]
            except ClipSegError as error:
                yield error

    return _readable(reads(), loader, left_out)


def _readable(reads: Iterable[Any], loader: LoaderSettings, left_out: list[str]) -> Iterator[Any]:
    """Yield readable items; raise the first error, or note each."""
    in_a_row = 0
    for read in reads:
        if not isinstance(read, ClipSegError):
            in_a_row = 0
            yield read
            continue
        in_a_row += 1
        if loader.unreadable == "stop":
            raise read
        if in_a_row == MOST_IN_A_ROW:
            raise _gone(read)
        _note([str(read)], left_out)


def with_left_out(provenance: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Return what results say of their origin, and that of these images they say nothing."""
    return dict(provenance) | ({"left_out": sorted(left_out)} if left_out else {})


def _gone(error: ClipSegError) -> ClipSegError:
    """Return what to raise where nothing can be read any more; `error` is the last of `MOST_IN_A_ROW`."""
    return ClipSegError(f"{error}; this and the {MOST_IN_A_ROW - 1} before it cannot be read: is data.root still there?")


def _note(errors: Sequence[str], left_out: list[str]) -> None:
    for line in errors:
        warnings.warn(f"{line}; left out", stacklevel=3)
    left_out.extend(errors)


class _Read(NamedTuple):
    """An item that a worker hands over, errors as values: raised in a worker they would arrive as a traceback in a string."""

    batch: Batch | None
    errors: list[str]
    failed: ClipSegError | None


class _Lenient(Dataset[Any]):
    """Items, or the next ones in their place: `tries` are tried at most. An item is `(sample or None, errors)`."""

    def __init__(self, data: Reader, tries: int):
        self.data = data
        self.tries = tries

    def __getitem__(self, index: tuple[int, int]) -> tuple[Sample | None, list[ClipSegError]]:
        epoch, item = index
        errors: list[ClipSegError] = []
        for place in range(item, item + self.tries):
            try:
                return self.data[epoch, place % len(self.data)], errors
            except ClipSegError as error:
                errors.append(error)
        return None, errors


def _join(items: Sequence[tuple[Sample | None, list[ClipSegError]]]) -> _Read:
    for sample, errors in items:
        if sample is None:
            return _Read(None, [], _gone(errors[-1]) if len(errors) == MOST_IN_A_ROW else errors[-1])
    samples = [sample for sample, _ in items if sample is not None]
    return _Read(collate(samples), [str(error) for _, errors in items for error in errors], None)


def _read(data: _Lenient, batch_sampler: Any, loader: LoaderSettings, device: torch.device) -> Iterator[_Read]:
    # Torch warns of more workers than cores; they wait for disks, and `LoaderSettings` has a limit of its own.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    batches = DataLoader(
        data,
        batch_sampler=batch_sampler,
        num_workers=loader.workers,
        collate_fn=_join,
        pin_memory=device.type == "cuda",
        timeout=loader.worker_timeout if loader.workers else 0,
        worker_init_fn=begin_worker,
    )
    reads = from_workers(batches)
    return _copied_ahead(reads, device) if device.type == "cuda" else (_on(device, read) for read in reads)


def _on(device: torch.device, read: _Read) -> _Read:
    return read if read.batch is None else read._replace(batch=read.batch.to(device))


def _copied_ahead(reads: Iterable[_Read], device: torch.device) -> Iterator[_Read]:
    """Each with its batch on the GPU, copied by a stream of its own while the step before it is computed."""
    copying = torch.cuda.Stream(device)
    waiting: list[tuple[_Read, torch.cuda.Event]] = []

    def arrived() -> _Read:
        read, copied = waiting.pop(0)
        using = torch.cuda.current_stream(device)
        using.wait_event(copied)
        if read.batch is not None:
            read.batch.record_stream(using)
        return read

    for read in reads:
        with torch.cuda.stream(copying):
            waiting.append((_on(device, read), copying.record_event()))
        if len(waiting) > 1:
            yield arrived()
    if waiting:
        yield arrived()
