"""Which items are read, in which order, by which process: arithmetic on positions, so that a run can stop and go on."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from clipseg.errors import ClipSegError


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """An endless stream of batches of `(epoch, item)` indices, for `DataLoader(batch_sampler=...)`.

    Position p of the stream is item `p % n_items` of epoch `p // n_items`; the data set shuffles within an epoch. A batch may
    reach over the end of an epoch, so every batch is full. A step's global batch does not depend on the number of processes.

    Args:
        n_items: length of the data set.
        batch_size: items of a global batch, over all processes.
        rank: which process this is; it gets every `world_size`-th item of each global batch.
        world_size: number of processes.
        start: the first step to yield: a run that is resumed after k steps passes k.

    Raises:
        ClipSegError: the batch cannot be divided by the number of processes, or there is no item.
    """

    def __init__(self, n_items: int, *, batch_size: int, rank: int = 0, world_size: int = 1, start: int = 0) -> None:
        if n_items < 1:
            raise ClipSegError("the training set has no items; check the split and what is left out of it")
        if batch_size < 1 or batch_size % world_size:
            raise ClipSegError(
                f"training.batch_size={batch_size} cannot be shared by {world_size} processes; "
                f"choose a multiple of {world_size}"
            )
        assert 0 <= rank < world_size
        assert start >= 0
        self.n_items = n_items
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of this process from step `start` on, without end."""
        step = self.start
        while True:
            positions = range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size)
            yield [divmod(position, self.n_items) for position in positions]
            step += 1


def shard(n_items: int, rank: int, world_size: int) -> range:
    """The items one of `world_size` processes evaluates: over all of them, each item exactly once."""
    return range(rank, n_items, world_size)
