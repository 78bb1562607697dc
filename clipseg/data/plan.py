"""Which tasks make up each item of an epoch: pure arithmetic on (seed, epoch), shared by every reader that trains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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


def shuffled_by_image(
    rows: NDArray[np.int64], image_of_task: NDArray[np.int64], *, most: int, seed: int, epoch: int
) -> EpochPlan:
    """As `group_by_image`, with the tasks of each image and the items in an order drawn from (seed, epoch)."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    plan = group_by_image(rng.permutation(rows), image_of_task, most=most)
    order = rng.permutation(len(plan))
    return EpochPlan(plan.tasks, plan.starts[order], plan.ends[order])
