"""The draws of training: which items are read, in which order, by which process; which tasks make up an item; what is cropped.

Arithmetic on positions and seeds, so that a run can stop and go on, and any number of processes sees the same stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
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
                f"batches of {batch_size} items cannot be shared by {world_size} processes; choose training.batch_size as a "
                f"multiple of {world_size} times training.phrases_per_image"
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


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Which tasks make up each item of an epoch: item i is `tasks[starts[i] : ends[i]]`."""

    tasks: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, item: int) -> NDArray[np.int64]:
        return self.tasks[self.starts[item] : self.ends[item]]


def group_by_image(rows: NDArray[np.int64], image_of_task: NDArray[np.int64], *, most: int) -> EpochPlan:
    """Bring the tasks of each image together, keeping their order, and cut them into items of at most `most`.

    Args:
        rows: int64 `[R]`, the tasks in use, in the order wanted.
        image_of_task: int64 `[T]`, the number of each task's image; only those of `rows` are looked at.
        most: tasks of an item.
    """
    image_of_row = image_of_task[rows]
    by_image = np.argsort(image_of_row, kind="stable")
    counts = np.bincount(image_of_row)
    place_in_image = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.flatnonzero(place_in_image % most == 0)
    return EpochPlan(rows[by_image], starts, np.append(starts[1:], len(rows)))


def split_index(index: tuple[int, int] | int, length: int) -> tuple[int, int]:
    """Return the epoch and the item of an index of a reader with `length` items; a bare item is one of epoch 0."""
    epoch, item = index if isinstance(index, tuple) else (0, index)
    if not 0 <= item < length:
        raise IndexError(f"item {item} of {length}")
    return epoch, item


def shuffled_by_image(
    rows: NDArray[np.int64], image_of_task: NDArray[np.int64], *, most: int, seed: int, epoch: int
) -> EpochPlan:
    """As `group_by_image`, with the tasks of each image and the items in an order drawn from (seed, epoch)."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    plan = group_by_image(rng.permutation(rows), image_of_task, most=most)
    order = rng.permutation(len(plan))
    return EpochPlan(plan.tasks, plan.starts[order], plan.ends[order])


class PhraseIndex:
    """The tasks of a data set by their phrase.

    Args:
        phrases: of all tasks.
        rows: int `[R]`, the tasks in use; only they are found.
    """

    def __init__(self, phrases: Sequence[str], rows: NDArray[np.int64]):
        texts = np.array([phrases[row] for row in rows.tolist()], dtype=object)
        self.phrases, number = np.unique(texts, return_inverse=True)
        order = np.argsort(number, kind="stable")
        self._rows = rows[order]
        self._starts = np.append(np.flatnonzero(np.diff(number[order], prepend=-1)), len(rows))
        self._number_of_row = dict(zip(rows.tolist(), number.tolist(), strict=True))

    def number(self, row: int) -> int:
        """The number of a task's phrase, an index into `phrases`."""
        return self._number_of_row[row]

    def rows(self, number: int) -> NDArray[np.int64]:
        """The tasks with a phrase."""
        return self._rows[self._starts[number] : self._starts[number + 1]]

    def another(self, number: int, rng: np.random.Generator) -> int:
        """Another phrase, uniform over the distinct ones; there must be one."""
        place = int(rng.integers(len(self.phrases) - 1))
        return place + (place >= number)


DRAWS = 50
LEAST_COVER = 0.05


def random_square_crop(mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the square of side min(H, W) that training sees: one in which the target shows.

    Args:
        mask: uint8 `[H, W]` of 0 and 1.
        rng: source of the places; it always gives the same number of draws, whatever the mask.

    Returns:
        `(top, left, side)` in pixels.
    """
    # The square fills the short side, so only its place along the long one is free.
    along = int(mask.shape[1] > mask.shape[0])
    offers = np.zeros((DRAWS, 2), dtype=np.int64)
    offers[:, along] = rng.integers(0, mask.shape[along] - min(mask.shape) + 1, size=DRAWS)
    return choose_crop(mask, offers)


def choose_crop(mask: NDArray[np.uint8], offers: NDArray[np.int64]) -> tuple[int, int, int]:
    """Choose among places the first whose square holds over 5% of the photo's pixels as mask, else the first with most mask.

    Args:
        mask: uint8 `[H, W]` of 0 and 1.
        offers: `[places, 2]`, top and left of squares of side min(H, W).

    Returns:
        `(top, left, side)` in pixels.

    Source: the paper's set-up says 5% of the crop; 5% of the photo, and 50 places, are what was run (docs/paper.md, Sec. 2).
    """
    side = min(mask.shape)
    along = int(mask.shape[1] > mask.shape[0])
    # Sums over lines across the long side are all it takes.
    cumulative = np.concatenate([[0], np.cumsum(mask.sum(axis=1 - along, dtype=np.int64))])
    places = offers[:, along]
    covered = cumulative[places + side] - cumulative[places]
    enough = covered > LEAST_COVER * mask.size
    top, left = offers[np.argmax(enough) if enough.any() else np.argmax(covered)].tolist()
    return top, left, side
